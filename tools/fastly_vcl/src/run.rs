//! Runs statements and evaluates expressions. What the lint has passed does not fail here, except
//! for what only a run can know: a division by zero, a test that fails.

use std::net::IpAddr;

use super::lexer::{Complaint, Place, complain};
use super::machine::{Machine, converted};
use super::signatures;
use super::syntax::{AclEntry, Action, Block, Expression, Node, Statement};
use super::values::{Type, Value, text_of};
use super::{builtins, digests, regexes, testing};

/// Subroutines may call each other, and themselves by mistake.
const CALL_DEPTH_MAX: usize = 50;

/// Whether the block goes on after a statement.
pub enum Flow {
    On,
    /// A bare `return;`: this subroutine is over, its caller goes on.
    Back,
    /// The request goes to another state of its life.
    State(String),
}

impl<'a> Machine<'a> {
    /// Runs a subroutine with locals and groups of its own.
    pub fn subroutine(&mut self, place: &Place, name: &str) -> Result<Flow, Complaint> {
        let scope = name.strip_prefix("vcl_").unwrap_or(&self.scope);
        if scope != self.scope {
            return complain(place, format!("{name} does not run in {}", self.scope));
        }
        let (program, test) = (self.program, self.test);
        let mocked = self.mocks.get(name).and_then(|mock| test.subroutine(mock));
        let Some(subroutine) = mocked.or_else(|| program.subroutine(name)) else {
            return complain(place, format!("there is no sub {name}"));
        };
        if self.depth == CALL_DEPTH_MAX {
            return complain(place, format!("{name} is called without an end"));
        }
        self.called.push(name.to_owned());
        let locals = std::mem::take(&mut self.locals);
        let groups = std::mem::take(&mut self.groups);
        self.depth += 1;
        let flow = self.block(&subroutine.block);
        self.depth -= 1;
        self.locals = locals;
        self.groups = groups;
        flow
    }

    pub fn block(&mut self, block: &'a Block) -> Result<Flow, Complaint> {
        for statement in block {
            match self.statement(statement)? {
                Flow::On => {}
                over => return Ok(over),
            }
        }
        Ok(Flow::On)
    }

    fn statement(&mut self, statement: &'a Statement) -> Result<Flow, Complaint> {
        let place = &statement.place;
        match &statement.action {
            Action::Declare { name, kind, value } => {
                let kind = Type::named(kind).expect("the lint knows it");
                self.locals.insert(name.clone(), kind.blank());
                if let Some(value) = value {
                    self.assign(place, name, "=", value)?;
                }
            }
            Action::Set { name, operator, value } => self.assign(place, name, operator, value)?,
            Action::Add { name, value } => {
                let (object, header) = super::headers::split(name).expect("the lint has seen it");
                if let Some(text) = self.evaluate(value, "(null)")?.to_text() {
                    self.headers.add(object, header, text);
                }
            }
            Action::Unset { name } => self.unset(name),
            Action::If { branches, otherwise } => {
                for (condition, block) in branches {
                    if self.evaluate(condition, "")?.is_true() {
                        return self.block(block);
                    }
                }
                return self.block(otherwise);
            }
            Action::Return { state: None } => return Ok(Flow::Back),
            Action::Return { state: Some(state) } => return Ok(Flow::State(state.clone())),
            Action::Error { status, response } => {
                self.error(status.as_ref(), response.as_ref())?;
                return Ok(Flow::State("error".to_owned()));
            }
            Action::Restart => return Ok(Flow::State("restart".to_owned())),
            Action::Esi => {}
            Action::Synthetic { is_base64, value } => {
                let text = self.evaluate(value, "")?.to_text().unwrap_or_default();
                let decoded = || text_of(&digests::base64_decoded(&text, false, true));
                self.body = Some(if *is_base64 { decoded() } else { text.clone() });
            }
            Action::Log { value } => {
                let line = self.evaluate(value, "(null)")?.to_text();
                self.logs.push(line.unwrap_or_else(|| "(null)".to_owned()));
            }
            Action::Call { name } => {
                if let Flow::State(state) = self.subroutine(place, name)? {
                    return Ok(Flow::State(state));
                }
            }
            Action::Function { name, arguments } => {
                self.call(place, name, arguments)?;
            }
        }
        Ok(Flow::On)
    }

    fn error(
        &mut self,
        status: Option<&'a Expression>,
        response: Option<&'a Expression>,
    ) -> Result<(), Complaint> {
        let status = match status {
            Some(status) => self.evaluate(status, "")?,
            None => Value::Integer(503),
        };
        let response = match response {
            Some(response) => self.evaluate(response, "")?.to_text(),
            None => None,
        };
        self.values.insert("obj.status".to_owned(), status);
        let response = Value::text(response.unwrap_or_default());
        self.values.insert("obj.response".to_owned(), response);
        Ok(())
    }

    fn assign(
        &mut self,
        place: &Place,
        name: &str,
        operator: &str,
        value: &'a Expression,
    ) -> Result<(), Complaint> {
        // In what is joined for a header, "not set" is written out; elsewhere it is nothing.
        let missing = if super::headers::split(name).is_some() { "(null)" } else { "" };
        let value = self.evaluate(value, missing)?;
        if operator == "=" {
            return self.set(place, name, value);
        }
        let old = self.get(place, name)?;
        let new = match (&old, operator) {
            (Value::Text(text), _) => {
                let more = value.to_text().unwrap_or_default();
                Value::text(text.clone().unwrap_or_default() + &more)
            }
            (Value::Time(time), _) => match (value, operator) {
                (Value::Span(span), "+=") => Value::Time(time + span),
                (Value::Span(span), _) => Value::Time(time - span),
                (other, _) => return complain(place, format!("{} is no RTIME", other.shown())),
            },
            (Value::Span(span), "*=" | "/=") => {
                let factor = value.number().unwrap_or_default();
                let factor = if operator == "*=" { factor } else { 1.0 / factor };
                Value::Span((*span as f64 * factor) as i64)
            }
            _ => calculated(place, &old, operator, value)?,
        };
        self.set(place, name, new)
    }

    /// `missing` is what a part that is not set becomes when strings are joined.
    pub fn evaluate(
        &mut self,
        expression: &'a Expression,
        missing: &str,
    ) -> Result<Value, Complaint> {
        let place = &expression.place;
        Ok(match &expression.node {
            Node::Text(text) => Value::text(text.clone()),
            Node::Integer(value) => Value::Integer(*value),
            Node::Float(value) => Value::Float(*value),
            Node::Bool(value) => Value::Bool(*value),
            Node::Span(value) => Value::Span(*value),
            Node::Name(name) => self.get(place, name)?,
            Node::Group(inner) => self.evaluate(inner, missing)?,
            Node::Not(inner) => Value::Bool(!self.evaluate(inner, "")?.is_true()),
            Node::And(left, right) => Value::Bool(
                self.evaluate(left, "")?.is_true() && self.evaluate(right, "")?.is_true(),
            ),
            Node::Or(left, right) => Value::Bool(
                self.evaluate(left, "")?.is_true() || self.evaluate(right, "")?.is_true(),
            ),
            Node::Compare(operator, left, right) => {
                let left = self.evaluate(left, "")?;
                let right = self.evaluate(right, "")?;
                Value::Bool(compared(operator, &left, &right))
            }
            Node::Match(wanted, left, right) => {
                let left = self.evaluate(left, "")?;
                Value::Bool(self.matches(place, &left, right)? == *wanted)
            }
            Node::Join(parts) => {
                let mut text = String::new();
                for part in parts {
                    let part = self.evaluate(part, missing)?.to_text();
                    text += part.as_deref().unwrap_or(missing);
                }
                Value::text(text)
            }
            Node::Call(name, arguments) if name == "if" => {
                let is_true = self.evaluate(&arguments[0], "")?.is_true();
                self.evaluate(&arguments[if is_true { 1 } else { 2 }], missing)?
            }
            Node::Call(name, arguments) => self.call(place, name, arguments)?,
        })
    }

    fn call(
        &mut self,
        place: &Place,
        name: &str,
        arguments: &'a [Expression],
    ) -> Result<Value, Complaint> {
        let Some(signature) = signatures::find(name, true) else {
            return complain(place, format!("there is no function {name}"));
        };
        let mut values = Vec::new();
        for (argument, kind) in arguments.iter().zip(&signature.arguments) {
            values.push(match (kind, &argument.node) {
                (Type::Word | Type::Table, Node::Name(word)) => Value::Word(word.clone()),
                (Type::Text, _) => Value::Text(self.evaluate(argument, "")?.to_text()),
                (Type::Any, _) => self.evaluate(argument, "")?,
                (kind, _) => {
                    let value = self.evaluate(argument, "")?;
                    converted(&argument.place, *kind, value)?
                }
            });
        }
        if name == "assert" || name.starts_with("assert.") || name.starts_with("testing.") {
            return testing::call(self, place, name, values);
        }
        let is_limitable = name.starts_with("regsub") || name.starts_with("querystring.filter");
        if is_limitable && !values.is_empty() && self.is_limited() {
            return Ok(values.swap_remove(0));
        }
        match builtins::call(self, place, name, &values) {
            Ok(value) => Ok(value),
            Err(what) => complain(place, format!("{name}: {what}")),
        }
    }

    fn matches(
        &mut self,
        place: &Place,
        left: &Value,
        right: &Expression,
    ) -> Result<bool, Complaint> {
        if let Node::Text(pattern) = &right.node {
            if self.is_limited() {
                return Ok(false);
            }
            return match regexes::groups(pattern, &left.to_text().unwrap_or_default()) {
                Ok(Some(groups)) => {
                    self.groups = groups;
                    Ok(true)
                }
                // A match that fails leaves the groups of the one before.
                Ok(None) => Ok(false),
                Err(error) => complain(place, error),
            };
        }
        let Node::Name(name) = &right.node else { return complain(place, "no acl") };
        let Some(entries) = self.program.acls.get(name) else {
            return complain(place, format!("there is no acl {name}"));
        };
        let address = left.to_text().and_then(|text| text.parse().ok());
        Ok(address.is_some_and(|address| is_in(entries, address)))
    }
}

/// The entry with the longest prefix that holds the address decides.
fn is_in(entries: &[AclEntry], address: IpAddr) -> bool {
    let holding = entries.iter().filter_map(|entry| {
        let range: IpAddr = entry.address.parse().unwrap_or([127, 0, 0, 1].into());
        let (range, address, width) = match (range, address) {
            (IpAddr::V4(range), IpAddr::V4(address)) => {
                (u128::from(range.to_bits()), u128::from(address.to_bits()), 32)
            }
            (IpAddr::V6(range), IpAddr::V6(address)) => (range.to_bits(), address.to_bits(), 128),
            _ => return None,
        };
        let prefix = u32::from(entry.prefix.unwrap_or(width)).min(u32::from(width));
        let rest = u32::from(width) - prefix;
        let is_same = prefix == 0 || range >> rest == address >> rest;
        is_same.then_some((prefix, entry.is_excluded))
    });
    holding.max_by_key(|(prefix, _)| *prefix).is_some_and(|(_, is_excluded)| !is_excluded)
}

/// What is not set is equal to nothing, not even to the empty string or to itself.
fn compared(operator: &str, left: &Value, right: &Value) -> bool {
    let are_equal = || match (left, right) {
        (Value::Text(left), Value::Text(right)) => left.is_some() && left == right,
        (Value::Address(_), _) => left.is_set() && left.to_text() == right.to_text(),
        _ => left == right,
    };
    let order = match (left, right) {
        (Value::Integer(left), Value::Integer(right)) => left.partial_cmp(right),
        _ => left.number().and_then(|left| left.partial_cmp(&right.number()?)),
    };
    match operator {
        "==" => are_equal(),
        "!=" => !are_equal(),
        "<" => order.is_some_and(std::cmp::Ordering::is_lt),
        "<=" => order.is_some_and(std::cmp::Ordering::is_le),
        ">" => order.is_some_and(std::cmp::Ordering::is_gt),
        _ => order.is_some_and(std::cmp::Ordering::is_ge),
    }
}

fn calculated(
    place: &Place,
    old: &Value,
    operator: &str,
    value: Value,
) -> Result<Value, Complaint> {
    let value = converted(place, old.kind(), value)?;
    if let (Value::Float(left), Value::Float(right)) = (old, &value) {
        return Ok(Value::Float(match operator {
            "+=" => left + right,
            "-=" => left - right,
            "*=" => left * right,
            _ => left / right,
        }));
    }
    let (Value::Integer(left) | Value::Span(left), Value::Integer(right) | Value::Span(right)) =
        (old, &value)
    else {
        return complain(place, format!("{} and {} do not add up", old.shown(), value.shown()));
    };
    let result = match operator {
        "+=" => left.checked_add(*right),
        "-=" => left.checked_sub(*right),
        "*=" => left.checked_mul(*right),
        "/=" => left.checked_div(*right),
        _ => left.checked_rem(*right),
    };
    match (result, old) {
        (Some(result), Value::Integer(_)) => Ok(Value::Integer(result)),
        (Some(result), _) => Ok(Value::Span(result)),
        (None, _) => complain(place, format!("{} {operator} {right} fails", old.shown())),
    }
}
