//! Reading `kind = "..."` with the rest of its table, such that an unknown kind names the nearest valid ones.

use crate::Error;
use serde::de::value::MapDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use std::collections::BTreeMap;
use std::marker::PhantomData;

/// A value of a term's table.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(untagged)]
pub(crate) enum Value {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// A list or a table, which no setting is.
    Other(serde::de::IgnoredAny),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "\"{value}\""),
            Self::Other(_) => write!(f, "a list or a table"),
        }
    }
}

/// A term as it is written.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Written {
    Table(BTreeMap<String, Value>),
    Other(Value),
}

/// The kind and the other entries of a table.
pub(crate) fn read<'de, D: Deserializer<'de>>(
    deserializer: D,
    what: &'static str,
    kinds: &[&str],
) -> Result<(String, BTreeMap<String, Value>), D::Error> {
    let mut entries = match Written::deserialize(deserializer)? {
        Written::Table(entries) => entries,
        Written::Other(value) => {
            let table = what.trim_end_matches(" kind");
            let kind = match &value {
                Value::Text(kind) if kinds.contains(&kind.as_str()) => kind.as_str(),
                _ => kinds.last().copied().unwrap_or_default(),
            };
            return Err(D::Error::custom(format!(
                "{value} is no term: write a table with its kind, for example {table}.kind = \"{kind}\""
            )));
        }
    };
    let kind = match entries.remove("kind") {
        Some(Value::Text(kind)) => kind,
        Some(other) => {
            let all = kinds.join(", ");
            return Err(D::Error::custom(format!("kind = {other}: write the name of an {what}: {all}")));
        }
        None => {
            return Err(D::Error::custom(format!("{what}: `kind` is missing; one of {}", kinds.join(", "))));
        }
    };
    if !kinds.contains(&kind.as_str()) {
        return Err(D::Error::custom(Error::unknown(what, &kind, kinds)));
    }
    Ok((kind, entries))
}

/// The term of the other entries.
pub(crate) fn finish<T: DeserializeOwned, E: serde::de::Error>(
    entries: BTreeMap<String, Value>,
) -> Result<T, E> {
    let entries =
        entries.into_iter().map(|(key, value)| (key.clone(), Typed::<E> { key, value, error: PhantomData }));
    T::deserialize(MapDeserializer::<_, E>::new(entries))
}

/// A value of a key, which says in its own words what should stand there.
struct Typed<E> {
    key: String,
    value: Value,
    error: PhantomData<E>,
}

impl<E: serde::de::Error> Typed<E> {
    fn wrong(&self, need: &str) -> E {
        E::custom(format!("{} = {}: write {need}", self.key, self.value))
    }

    /// A whole number, also one that is written with a point.
    fn whole(&self) -> Option<i64> {
        match self.value {
            Value::Int(value) => Some(value),
            Value::Float(value) if value.fract() == 0.0 && value.abs() < 9e15 => Some(value as i64),
            _ => None,
        }
    }
}

impl<'de, E: serde::de::Error> IntoDeserializer<'de, E> for Typed<E> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de, E: serde::de::Error> Deserializer<'de> for Typed<E> {
    type Error = E;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        match self.value {
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Int(value) => visitor.visit_i64(value),
            Value::Float(value) => visitor.visit_f64(value),
            Value::Text(value) => visitor.visit_string(value),
            Value::Other(_) => Err(self.wrong("a single value")),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        match self.value {
            Value::Bool(value) => visitor.visit_bool(value),
            _ => Err(self.wrong("true or false")),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        match self.value {
            Value::Int(value) => visitor.visit_f64(value as f64),
            Value::Float(value) => visitor.visit_f64(value),
            _ => Err(self.wrong("a number")),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        match self.whole().and_then(|value| u64::try_from(value).ok()) {
            Some(value) => visitor.visit_u64(value),
            None => Err(self.wrong("a whole number of at least 0")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, E> {
        match &self.value {
            Value::Text(value) if variants.contains(&value.as_str()) => {
                let text: serde::de::value::StrDeserializer<'_, E> = value.as_str().into_deserializer();
                text.deserialize_enum(name, variants, visitor)
            }
            _ => Err(self.wrong(&format!("one of {}", variants.join(", ")))),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
