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
}

/// The kind and the other entries of a table.
pub(crate) fn read<'de, D: Deserializer<'de>>(
    deserializer: D,
    what: &'static str,
    kinds: &[&str],
) -> Result<(String, BTreeMap<String, Value>), D::Error> {
    let mut entries = BTreeMap::<String, Value>::deserialize(deserializer)?;
    let Some(Value::Text(kind)) = entries.remove("kind") else {
        return Err(D::Error::custom(format!("{what}: `kind` is missing; one of {}", kinds.join(", "))));
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
    let entries = entries.into_iter().map(|(key, value)| (key, Typed::<E>(value, PhantomData)));
    T::deserialize(MapDeserializer::<_, E>::new(entries))
}

struct Typed<E>(Value, PhantomData<E>);

impl<'de, E: serde::de::Error> IntoDeserializer<'de, E> for Typed<E> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de, E: serde::de::Error> Deserializer<'de> for Typed<E> {
    type Error = E;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        match self.0 {
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Int(value) => visitor.visit_i64(value),
            Value::Float(value) => visitor.visit_f64(value),
            Value::Text(value) => visitor.visit_string(value),
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
        match self.0 {
            Value::Text(value) => {
                let text: serde::de::value::StringDeserializer<E> = value.into_deserializer();
                text.deserialize_enum(name, variants, visitor)
            }
            _ => Err(E::custom(format!("{name}: expected one of {}", variants.join(", ")))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
