//! VCL's own functions on strings, numbers, times, tables and headers, as Fastly's reference
//! describes them. Cryptography: `digests.rs`; query strings: `queries.rs`.

use super::headers;
use super::lexer::Place;
use super::machine::Machine;
use super::values::{Value, bytes_of, text_of};
use super::{dates, digests, queries, regexes};

const SECOND: i64 = 1_000_000_000;

/// `Err` is a misuse that stops the test; what Fastly reports in `fastly.error` is not.
pub fn call(
    machine: &mut Machine,
    place: &Place,
    name: &str,
    values: &[Value],
) -> Result<Value, String> {
    let (family, _) = name.split_once('.').unwrap_or((name, ""));
    match family {
        "digest" => digests::call(name, values),
        "querystring" | "boltsort" => queries::call(name, values),
        "table" => table(machine, place, name, values),
        "random" | "randomint" | "randombool" | "randomint_seeded" => random(machine, name, values),
        _ if matches!(name, "std.collect" | "std.count") => collect(machine, name, values),
        "time" | "strftime" => time(name, values),
        _ => strings(machine, name, values),
    }
}

/// A string argument; where nothing is said of "not set", it counts as empty.
pub fn text(values: &[Value], index: usize) -> String {
    values.get(index).and_then(Value::to_text).unwrap_or_default()
}

fn integer(values: &[Value], index: usize) -> Option<i64> {
    match values.get(index) {
        Some(Value::Integer(value)) => Some(*value),
        _ => None,
    }
}

fn table(
    machine: &mut Machine,
    place: &Place,
    name: &str,
    values: &[Value],
) -> Result<Value, String> {
    let (table, key) = (text(values, 0), text(values, 1));
    let Some(table) = machine.tables.get(&table).cloned() else {
        return Err(format!("there is no table {table}"));
    };
    let row = table.rows.get(&key);
    if name == "table.contains" {
        return Ok(Value::Bool(row.is_some()));
    }
    let wanted = match name {
        "table.lookup" => "STRING".to_owned(),
        _ => name.trim_start_matches("table.lookup_").to_uppercase(),
    };
    if table.kind != wanted {
        return Err(format!("the table holds {}, not {wanted}", table.kind));
    }
    use super::syntax::Node;
    Ok(match row.map(|row| &row.node) {
        None => values.get(2).cloned().unwrap_or(Value::Text(None)),
        Some(Node::Text(text)) => Value::text(text.clone()),
        Some(Node::Integer(value)) => Value::Integer(*value),
        Some(Node::Float(value)) => Value::Float(*value),
        Some(Node::Bool(value)) => Value::Bool(*value),
        Some(Node::Span(value)) => Value::Span(*value),
        Some(_) => return Err(format!("{place}: {key:?} holds no literal")),
    })
}

/// The numbers are not Fastly's, only their range is.
fn random(machine: &mut Machine, name: &str, values: &[Value]) -> Result<Value, String> {
    let (from, to) = (integer(values, 0).unwrap_or(0), integer(values, 1).unwrap_or(0));
    if name == "randombool" {
        return Ok(Value::Bool((machine.next_random() % to.max(1) as u64) < from.max(0) as u64));
    }
    if from > to || [from, to].iter().any(|bound| i32::try_from(*bound).is_err()) {
        return Err(format!("{from} to {to} is no range of 32 bits"));
    }
    if let Some(seed) = integer(values, 2) {
        machine.random = seed as u64;
    }
    let width = (to - from + 1) as u64;
    Ok(Value::Integer(from + (machine.next_random() % width) as i64))
}

fn collect(machine: &mut Machine, name: &str, values: &[Value]) -> Result<Value, String> {
    let variable = text(values, 0);
    let Some((object, header)) = headers::split(&variable) else {
        return Err(format!("{variable} is no header"));
    };
    if name == "std.count" {
        return Ok(Value::Integer(machine.headers.count(object, header) as i64));
    }
    let separator = values.get(1).and_then(Value::to_text);
    machine.headers.collect(object, header, separator.as_deref().unwrap_or(", "));
    Ok(Value::Nothing)
}

fn time(name: &str, values: &[Value]) -> Result<Value, String> {
    Ok(match (name, values) {
        ("strftime", [pattern, Value::Time(time)]) => {
            let formatted = dates::formatted(&pattern.to_text().unwrap_or_default(), *time);
            Value::text(formatted.map_err(|letter| format!("%{letter} is not known here"))?)
        }
        ("time.is_after", [Value::Time(left), Value::Time(right)]) => Value::Bool(left > right),
        ("time.add", [Value::Time(time), Value::Span(span)]) => Value::Time(time + span),
        ("time.sub", [Value::Time(time), Value::Span(span)]) => Value::Time(time - span),
        _ => return Err("it was called with other types".to_owned()),
    })
}

fn strings(machine: &mut Machine, name: &str, values: &[Value]) -> Result<Value, String> {
    let (first, second, third) = (text(values, 0), text(values, 1), text(values, 2));
    Ok(match name {
        "regsub" => Value::text(regexes::replaced(&first, &second, &third, false)?),
        "regsuball" => Value::text(regexes::replaced(&first, &second, &third, true)?),
        "std.tolower" => Value::text(first.to_ascii_lowercase()),
        "std.toupper" => Value::text(first.to_ascii_uppercase()),
        "std.strlen" => Value::Integer(bytes_of(&first).len() as i64),
        "std.strrev" => Value::text(first.chars().rev().collect::<String>()),
        "std.strrep" => Value::text(first.repeat(integer(values, 1).unwrap_or(0).max(0) as usize)),
        "std.strstr" => Value::Text(first.find(&second).map(|at| first[at..].to_owned())),
        "std.prefixof" => Value::Bool(first.starts_with(&second)),
        "std.suffixof" => Value::Bool(first.ends_with(&second)),
        "std.replace" => Value::text(first.replacen(&second, &third, 1)),
        "std.replaceall" => Value::text(first.replace(&second, &third)),
        "std.replace_prefix" => match first.strip_prefix(&second) {
            Some(rest) => Value::text(third + rest),
            None => Value::text(first),
        },
        "std.replace_suffix" => match first.strip_suffix(&second) {
            Some(rest) => Value::text(rest.to_owned() + &third),
            None => Value::text(first),
        },
        "substr" => substring(&first, values)?,
        "subfield" => {
            let separator = third.chars().next().unwrap_or(',');
            Value::Text(headers::subfield(&first, &second, separator))
        }
        "cstr_escape" => Value::text(escaped(&first)),
        "json.escape" => {
            let quoted = serde_json::to_string(&first).expect("a string is JSON");
            Value::text(&quoted[1..quoted.len() - 1])
        }
        "urlencode" => Value::text(queries::encoded(&first)),
        "urldecode" => Value::text(queries::decoded(&first)),
        "http_status_matches" => Value::Bool(status_matches(&first, &second)),
        _ => return numbers(machine, name, values),
    })
}

fn numbers(machine: &mut Machine, name: &str, values: &[Value]) -> Result<Value, String> {
    let first = text(values, 0);
    Ok(match name {
        "std.atoi" => whole(machine, &first, 10),
        "std.strtol" => whole(machine, &first, integer(values, 1).unwrap_or(10)),
        "std.atof" => Value::Float(first.trim().parse().unwrap_or(0.0)),
        "std.itoa" => {
            Value::text(digits(integer(values, 0).unwrap_or(0), integer(values, 1).unwrap_or(10))?)
        }
        "std.integer2time" => Value::Time(integer(values, 0).unwrap_or(0).saturating_mul(SECOND)),
        "std.time" => match dates::parsed(&first) {
            Some(time) => Value::Time(time),
            None => values[1].clone(),
        },
        "std.ip" | "std.str2ip" => {
            let address = first.parse().or_else(|_| text(values, 1).parse());
            Value::Address(Some(address.map_err(|_| "neither is an address".to_owned())?))
        }
        "addr.is_ipv4" | "addr.is_ipv6" => {
            let Some(Value::Address(address)) = values.first() else {
                return Err("it takes an address".to_owned());
            };
            Value::Bool(address.is_some_and(|address| address.is_ipv6() == name.ends_with('6')))
        }
        _ => return Err("the interpreter does not have it".to_owned()),
    })
}

/// A negative offset counts from the end; a negative length stops so far before it.
fn substring(text: &str, values: &[Value]) -> Result<Value, String> {
    let bytes = bytes_of(text);
    let size = bytes.len() as i64;
    let offset = integer(values, 1).unwrap_or(0);
    let begin = if offset < 0 { size + offset } else { offset };
    let end = match integer(values, 2) {
        None => size,
        Some(length) if length < 0 => size + length,
        Some(length) => begin.saturating_add(length).min(size),
    };
    if begin < 0 || begin > size || end < begin {
        return Ok(Value::Text(None));
    }
    Ok(Value::text(text_of(&bytes[begin as usize..end as usize])))
}

/// strtol(3): what follows the digits does not matter; without digits it is 0 and an error.
fn whole(machine: &mut Machine, text: &str, base: i64) -> Value {
    let trimmed = text.trim_start();
    let (sign, rest) = match trimmed.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, trimmed.strip_prefix('+').unwrap_or(trimmed)),
    };
    let has_prefix = rest.starts_with("0x") || rest.starts_with("0X");
    let base = match base {
        0 if has_prefix => 16,
        0 if rest.starts_with('0') => 8,
        0 => 10,
        other => other,
    };
    let rest = if has_prefix && base == 16 { &rest[2..] } else { rest };
    let is_base = (2..=36).contains(&base);
    let radix = if is_base { base as u32 } else { 10 };
    let length = rest.find(|letter: char| !letter.is_digit(radix)).unwrap_or(rest.len());
    let error = match i64::from_str_radix(&rest[..length], radix) {
        Ok(value) if is_base => return Value::Integer(sign * value),
        _ if length == 0 && is_base => "EPARSENUM",
        _ => "ERANGE",
    };
    machine.values.insert("fastly.error".to_owned(), Value::text(error));
    Value::Integer(0)
}

fn digits(value: i64, base: i64) -> Result<String, String> {
    let radix = u32::try_from(base).ok().filter(|radix| (2..=36).contains(radix));
    let Some(radix) = radix else { return Err(format!("{base} is no base")) };
    let mut left = value.unsigned_abs();
    let mut letters = Vec::new();
    loop {
        let digit = (left % u64::from(radix)) as u32;
        letters.push(char::from_digit(digit, radix).expect("it is below the base"));
        left /= u64::from(radix);
        if left == 0 {
            break;
        }
    }
    if value < 0 {
        letters.push('-');
    }
    Ok(letters.into_iter().rev().collect())
}

fn escaped(text: &str) -> String {
    let mut result = String::new();
    for byte in bytes_of(text) {
        match byte {
            b'"' => result += "\\\"",
            b'\\' => result += "\\\\",
            b'\n' => result += "\\n",
            b'\r' => result += "\\r",
            b'\t' => result += "\\t",
            b' '..=b'~' => result.push(byte as char),
            _ => result += &format!("\\x{byte:02x}"),
        }
    }
    result
}

/// `"200,404"`, or with a `!` before it none of them.
fn status_matches(status: &str, pattern: &str) -> bool {
    match pattern.strip_prefix('!') {
        Some(rest) => !rest.split(',').any(|one| one.trim() == status),
        None => pattern.split(',').any(|one| one.trim() == status),
    }
}
