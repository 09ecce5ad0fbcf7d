//! Reads the pickles of CIFAR's Python version without running anything of them.
//!
//! A pickle is a program for a stack machine that may call any function of Python. This reader knows the
//! instructions that build dictionaries, lists, tuples, numbers, strings and NumPy arrays; a call is never
//! made, but kept as its arguments, of which the array's bytes are taken. Anything else is refused.

use std::collections::BTreeMap;
use std::rc::Rc;

#[derive(Clone, Debug)]
enum Value {
    /// The start of a group of arguments.
    Mark,
    None,
    Int(i64),
    Bytes(Rc<[u8]>),
    List(Rc<Vec<Value>>),
    Dict(Rc<Vec<(Value, Value)>>),
    /// The name of a function or a class.
    Global(Rc<str>),
    /// What a call would have made: function, arguments, and the state that was set afterwards.
    Object(Rc<(Value, Value, Option<Value>)>),
}

/// Instructions, and copied items of lists, in one file.
const MOST: usize = 40_000_000;

/// Instructions that put values into others. It bounds how deep values nest, and with that the stack that is
/// needed to drop them.
const MOST_GROUPS: usize = 2_000;

/// Pixels and labels of a batch; for CIFAR-100 the fine labels.
pub(super) fn batch(bytes: &[u8]) -> Result<(Vec<u8>, Vec<i64>), String> {
    let root = load(bytes)?;
    let data = field(&root, "data").ok_or("no `data`")?;
    let pixels = array(data).ok_or("`data` is not an array of bytes")?;
    let labels = field(&root, "fine_labels").or_else(|| field(&root, "labels")).ok_or("no `labels`")?;
    let Value::List(labels) = labels else { return Err("`labels` is not a list".into()) };
    let labels: Option<Vec<i64>> =
        labels.iter().map(|v| if let Value::Int(i) = v { Some(*i) } else { None }).collect();
    let labels = labels.ok_or("`labels` holds something else than whole numbers")?;
    if pixels.len() != labels.len() * 3072 {
        return Err(format!("{} bytes of pixels for {} labels of 3072", pixels.len(), labels.len()));
    }
    Ok((pixels.to_vec(), labels))
}

/// The names of the classes in `batches.meta` or `meta`.
pub(super) fn class_names(bytes: &[u8]) -> Result<Vec<String>, String> {
    let root = load(bytes)?;
    let names = field(&root, "fine_label_names").or_else(|| field(&root, "label_names"));
    let Some(Value::List(names)) = names else { return Err("no `label_names`".into()) };
    let text = |v: &Value| match v {
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    };
    names.iter().map(text).collect::<Option<_>>().ok_or_else(|| "a name that is no string".into())
}

fn field<'a>(root: &'a Value, name: &str) -> Option<&'a Value> {
    let Value::Dict(entries) = root else { return None };
    let key = |v: &Value| matches!(v, Value::Bytes(b) if **b == *name.as_bytes());
    entries.iter().find(|(k, _)| key(k)).map(|(_, v)| v)
}

/// The bytes of a NumPy array of `uint8`: the last item of the state that its reconstruction is given.
fn array(value: &Value) -> Option<Rc<[u8]>> {
    let Value::Object(object) = value else { return None };
    let (Value::Global(function), _, Some(Value::List(state))) = &**object else { return None };
    if !function.ends_with(".multiarray _reconstruct") {
        return None;
    }
    // (version, shape, dtype, is_fortran, bytes)
    let [_, _, dtype, _, bytes] = &state[..] else { return None };
    let Value::Object(dtype) = dtype else { return None };
    let Value::List(arguments) = &dtype.1 else { return None };
    match (arguments.first(), bytes) {
        (Some(Value::Bytes(name)), Value::Bytes(bytes)) if **name == *b"u1" => Some(bytes.clone()),
        _ => None,
    }
}

/// Runs the instructions of protocols 0 to 4 that are known.
fn load(bytes: &[u8]) -> Result<Value, String> {
    let mut machine = Machine { bytes, at: 0, stack: Vec::new(), memo: BTreeMap::new(), steps: 0, groups: 0 };
    machine.run()
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    memo: BTreeMap<u32, Value>,
    steps: usize,
    groups: usize,
}

const SHORT: &str = "it ends early";
const EMPTY: &str = "an instruction without its arguments";

impl<'a> Machine<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(n).ok_or(SHORT)?;
        let out = self.bytes.get(self.at..end).ok_or(SHORT)?;
        self.at = end;
        Ok(out)
    }

    fn number(&mut self, n: usize) -> Result<u64, String> {
        let bytes = self.take(n)?;
        Ok(bytes.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b)))
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let rest = self.bytes.get(self.at..).ok_or(SHORT)?;
        let end = rest.iter().take(1000).position(|b| *b == b'\n').ok_or("a line without an end")?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| "a name that is no text".to_owned())
    }

    fn pop(&mut self) -> Result<Value, String> {
        self.stack.pop().ok_or_else(|| EMPTY.into())
    }

    /// All values above the last mark.
    fn group(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.stack.iter().rposition(|v| matches!(v, Value::Mark)).ok_or(EMPTY)?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn string(&mut self, length: usize) -> Result<(), String> {
        let n = self.number(length)?;
        let bytes = self.take(usize::try_from(n).map_err(|_| SHORT)?)?;
        self.stack.push(Value::Bytes(bytes.into()));
        Ok(())
    }

    fn tuple(&mut self, n: usize) -> Result<(), String> {
        let from = self.stack.len().checked_sub(n).ok_or(EMPTY)?;
        let items = self.stack.split_off(from);
        self.stack.push(Value::List(Rc::new(items)));
        Ok(())
    }

    fn append(&mut self, items: Vec<Value>) -> Result<(), String> {
        match self.stack.last_mut() {
            Some(Value::List(list)) => {
                // A list that is remembered too is copied.
                self.steps += list.len();
                Rc::make_mut(list).extend(items);
            }
            _ => return Err(EMPTY.into()),
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<Value>) -> Result<(), String> {
        let mut items = items.into_iter();
        let Some(Value::Dict(entries)) = self.stack.last_mut() else { return Err(EMPTY.into()) };
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            Rc::make_mut(entries).push((key, value));
        }
        Ok(())
    }

    fn remember(&mut self, key: u64) -> Result<(), String> {
        let top = self.stack.last().cloned().ok_or(EMPTY)?;
        self.memo.insert(key as u32, top);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Result<(), String> {
        let value = self.memo.get(&(key as u32)).cloned().ok_or("a value that was never kept")?;
        self.stack.push(value);
        Ok(())
    }

    fn run(&mut self) -> Result<Value, String> {
        loop {
            self.steps += 1;
            if self.steps > MOST {
                return Err("too many instructions".into());
            }
            let code = self.take(1)?[0];
            self.groups +=
                usize::from(matches!(code, b't' | 0x85..=0x87 | b'a' | b'e' | b's' | b'u' | b'R' | b'b'));
            if self.groups > MOST_GROUPS {
                return Err("too many groups of values".into());
            }
            match code {
                b'.' => return self.pop(),
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'(' => self.stack.push(Value::Mark),
                b'}' => self.stack.push(Value::Dict(Rc::default())),
                b']' | b')' => self.stack.push(Value::List(Rc::default())),
                b'N' => self.stack.push(Value::None),
                0x88 | 0x89 => self.stack.push(Value::Int(i64::from(code == 0x88))),
                b'K' => {
                    let v = self.number(1)?;
                    self.stack.push(Value::Int(v as i64));
                }
                b'M' => {
                    let v = self.number(2)?;
                    self.stack.push(Value::Int(v as i64));
                }
                b'J' => {
                    let v = self.number(4)? as u32 as i32;
                    self.stack.push(Value::Int(i64::from(v)));
                }
                b'I' => {
                    let v = self.line()?.trim().parse().map_err(|_| "a number that is none")?;
                    self.stack.push(Value::Int(v));
                }
                b'U' | b'C' | 0x8c => self.string(1)?,
                b'T' | b'X' | b'B' => self.string(4)?,
                0x8d | 0x8e => self.string(8)?,
                b'q' => self.number(1).and_then(|key| self.remember(key))?,
                b'r' => self.number(4).and_then(|key| self.remember(key))?,
                0x94 => self.remember(self.memo.len() as u64)?,
                b'h' => self.number(1).and_then(|key| self.recall(key))?,
                b'j' => self.number(4).and_then(|key| self.recall(key))?,
                b'c' => {
                    let name = format!("{} {}", self.line()?, self.line()?);
                    self.stack.push(Value::Global(name.into()));
                }
                0x93 => match (self.pop()?, self.pop()?) {
                    (Value::Bytes(name), Value::Bytes(module)) => {
                        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
                        let name = format!("{} {}", text(&module), text(&name));
                        self.stack.push(Value::Global(name.into()));
                    }
                    _ => return Err(EMPTY.into()),
                },
                b't' => {
                    let items = self.group()?;
                    self.stack.push(Value::List(Rc::new(items)));
                }
                0x85..=0x87 => self.tuple(usize::from(code) - 0x84)?,
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.group()?;
                    self.append(items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set(vec![key, value])?;
                }
                b'u' => {
                    let items = self.group()?;
                    self.set(items)?;
                }
                b'R' => {
                    let (arguments, function) = (self.pop()?, self.pop()?);
                    self.stack.push(call(function, arguments)?);
                }
                b'b' => {
                    let state = self.pop()?;
                    match self.pop()? {
                        Value::Object(o) => {
                            let (function, arguments, _) = &*o;
                            let object = (function.clone(), arguments.clone(), Some(state));
                            self.stack.push(Value::Object(Rc::new(object)));
                        }
                        _ => return Err(EMPTY.into()),
                    }
                }
                other => return Err(format!("the instruction 0x{other:02x} is not read")),
            }
        }
    }
}

/// What a call would make. Python 3 writes bytes into old protocols as text in Latin-1 to be encoded.
fn call(function: Value, arguments: Value) -> Result<Value, String> {
    if let (Value::Global(name), Value::List(items)) = (&function, &arguments)
        && &**name == "_codecs encode"
        && let Some(Value::Bytes(text)) = items.first()
    {
        let text = std::str::from_utf8(text).map_err(|_| "text that is none")?;
        let bytes: Result<Vec<u8>, _> = text.chars().map(|c| u8::try_from(u32::from(c))).collect();
        return Ok(Value::Bytes(bytes.map_err(|_| "text beyond Latin-1")?.into()));
    }
    Ok(Value::Object(Rc::new((function, arguments, None))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_not_made() {
        // os.system("true"), as an attacker would write it.
        let value = load(b"cos\nsystem\n(U\x04truetR.").unwrap();
        let Value::Object(object) = value else { panic!("{value:?}") };
        assert!(matches!(&object.0, Value::Global(name) if &**name == "os system"));
    }

    #[test]
    fn numbers_strings_and_groups() {
        let value = load(b"\x80\x02}q\x00(U\x01aK\x05U\x01b](K\x01M\x00\x01J\xff\xff\xff\xffeu.").unwrap();
        assert!(matches!(field(&value, "a"), Some(Value::Int(5))));
        let Some(Value::List(items)) = field(&value, "b") else { panic!("{value:?}") };
        assert!(matches!(items[..], [Value::Int(1), Value::Int(256), Value::Int(-1)]), "{items:?}");
    }

    #[test]
    fn damage_is_an_error() {
        for bytes in [&b""[..], b".", b"U\x05ab.", b"e.", b"h\x01.", b"\xff.", b"K\x01b.", b"K\x01K\x02s."] {
            assert!(load(bytes).is_err(), "{bytes:?}");
        }
        assert!(batch(b"}.").is_err());
        // A tower of tuples would overflow the stack when it is dropped.
        let tower = [&b"K\x01"[..], &vec![0x85; 1 << 20], b"."].concat();
        assert!(load(&tower).unwrap_err().contains("groups"));
    }
}
