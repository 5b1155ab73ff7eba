//! The lint of expressions: their types, and whether what they name can be read where they stand.

use super::lexer::Place;
use super::lint::{Lint, assignable};
use super::regexes;
use super::signatures;
use super::syntax::{Expression, Node};
use super::values::Type;
use super::variables;

/// Functions whose pattern Fastly compiles ahead of time, and which argument that is.
const PATTERNS: [(&str, usize); 6] = [
    ("regsub", 1),
    ("regsuball", 1),
    ("querystring.regfilter", 1),
    ("querystring.regfilter_except", 1),
    ("assert.match", 1),
    ("assert.not_match", 1),
];

const TEST_VARIABLES: [&str; 3] =
    ["testing.state", "testing.synthetic_body", "testing.origin_host_header"];

impl Lint<'_> {
    /// `None` after a complaint, so that each mistake is reported once.
    pub(super) fn type_of(&mut self, expression: &Expression) -> Option<Type> {
        let place = &expression.place;
        match &expression.node {
            Node::Text(_) => Some(Type::Text),
            Node::Integer(_) => Some(Type::Integer),
            Node::Float(_) => Some(Type::Float),
            Node::Bool(_) => Some(Type::Bool),
            Node::Span(_) => Some(Type::Span),
            Node::Name(name) => self.name(place, name),
            Node::Call(name, arguments) if name == "if" => self.choice(place, arguments),
            Node::Call(name, arguments) => match self.call(place, name, arguments)? {
                Type::Nothing => {
                    self.complain(place, format!("{name} gives nothing"));
                    None
                }
                result => Some(result),
            },
            Node::Group(inner) => self.type_of(inner),
            Node::Not(inner) => {
                self.condition(inner);
                Some(Type::Bool)
            }
            Node::And(left, right) | Node::Or(left, right) => {
                self.condition(left);
                self.condition(right);
                Some(Type::Bool)
            }
            Node::Compare(operator, left, right) => {
                self.comparison(place, operator, left, right);
                Some(Type::Bool)
            }
            Node::Match(_, left, right) => {
                self.matching(place, left, right);
                Some(Type::Bool)
            }
            Node::Join(parts) => {
                for part in parts {
                    self.wants(part, Type::Text);
                }
                Some(Type::Text)
            }
        }
    }

    fn name(&mut self, place: &Place, name: &str) -> Option<Type> {
        if let Some(number) = name.strip_prefix("re.group.") {
            if !matches!(number.parse(), Ok(0..=10)) {
                self.complain(place, format!("there is no {name}"));
            }
            return Some(Type::Text);
        }
        if name.starts_with("var.") {
            let kind = self.locals.get(name).copied();
            if kind.is_none() {
                self.complain(place, format!("{name} is not declared"));
            }
            return kind;
        }
        if self.program.backends.iter().any(|backend| backend == name) {
            return Some(Type::Backend);
        }
        if self.program.acls.contains_key(name) {
            return Some(Type::Acl);
        }
        if self.program.tables.contains_key(name) {
            return Some(Type::Table);
        }
        if self.is_test && TEST_VARIABLES.contains(&name) {
            return Some(Type::Text);
        }
        let Some(variable) = variables::find(name) else {
            self.complain(place, format!("there is no variable {name}"));
            return None;
        };
        if !variable.may_be_read(self.scope) {
            self.complain(place, format!("{name} cannot be read in {}", self.scope));
        }
        Some(variable.kind)
    }

    /// What `if (…)` takes: a BOOL, or something that may be not set. Never a literal.
    pub(super) fn condition(&mut self, expression: &Expression) {
        let Some(found) = self.type_of(expression) else { return };
        let is_literal = expression.node.is_literal() && found != Type::Bool;
        if is_literal || !matches!(found, Type::Bool | Type::Text | Type::Address) {
            let what = format!("a condition takes no {}", found.name());
            self.complain(&expression.place, what);
        }
    }

    fn choice(&mut self, place: &Place, arguments: &[Expression]) -> Option<Type> {
        let [condition, left, right] = arguments else {
            self.complain(place, "if() takes a condition and two values".to_owned());
            return None;
        };
        self.condition(condition);
        let (left, right) = (self.type_of(left)?, self.type_of(right)?);
        Some(if left == right { left } else { Type::Text })
    }

    /// Complains unless the expression is of the type or becomes it by itself.
    pub(super) fn wants(&mut self, expression: &Expression, wanted: Type) {
        let Some(found) = self.type_of(expression) else { return };
        if !assignable(wanted, found, expression.node.is_literal()) {
            let what = format!("{} is wanted here, not {}", wanted.name(), found.name());
            self.complain(&expression.place, what);
        }
    }

    fn comparison(&mut self, place: &Place, operator: &str, left: &Expression, right: &Expression) {
        if left.node.is_literal() {
            self.complain(place, format!("no literal stands left of {operator}"));
        }
        let is_literal = right.node.is_literal();
        let (Some(left), Some(right)) = (self.type_of(left), self.type_of(right)) else { return };
        let is_order = !matches!(operator, "==" | "!=");
        let fits = match (left, right) {
            (Type::Any, _) | (_, Type::Any) => true,
            (Type::Text | Type::Bool | Type::Backend | Type::Address, _) if is_order => false,
            (Type::Float, Type::Integer) => true,
            (Type::Integer, Type::Span) | (Type::Span, Type::Integer | Type::Float) => {
                is_order && !is_literal
            }
            (Type::Address, Type::Text) => true,
            _ => left == right && !matches!(left, Type::Acl | Type::Table),
        };
        if !fits {
            let what = format!("{} {operator} {} cannot be", left.name(), right.name());
            self.complain(place, what);
        }
    }

    fn matching(&mut self, place: &Place, left: &Expression, right: &Expression) {
        if left.node.is_literal() {
            self.complain(place, "no literal stands left of ~".to_owned());
        }
        let found = self.type_of(left);
        if let Node::Text(pattern) = &right.node {
            self.pattern(&right.place, pattern);
            if found.is_some_and(|found| found != Type::Text) {
                self.complain(place, "only strings are matched with expressions".to_owned());
            }
            return;
        }
        let (Some(found), Some(right)) = (found, self.type_of(right)) else { return };
        let is_address = matches!(found, Type::Address | Type::Text);
        if right != Type::Acl || !is_address {
            let what = "right of ~ stands a literal expression or an acl".to_owned();
            self.complain(place, what);
        }
    }

    fn pattern(&mut self, place: &Place, pattern: &str) {
        if let Err(error) = regexes::compiled(pattern) {
            self.complain(place, format!("{pattern:?}: {error}"));
        }
    }

    /// The type that a call gives.
    pub(super) fn call(
        &mut self,
        place: &Place,
        name: &str,
        arguments: &[Expression],
    ) -> Option<Type> {
        let Some(signature) = signatures::find(name, self.is_test) else {
            self.complain(place, format!("there is no function {name}"));
            return None;
        };
        let count = arguments.len();
        if count < signature.required || count > signature.arguments.len() {
            let wanted = signature.arguments.iter().map(|kind| kind.name()).collect::<Vec<_>>();
            self.complain(place, format!("{name} takes {}, not {count}", wanted.join(", ")));
            return None;
        }
        for (argument, wanted) in arguments.iter().zip(&signature.arguments) {
            match wanted {
                Type::Word => self.word(name, argument),
                Type::Table => self.table(name, argument),
                // Most types become strings by themselves; nothing else is converted in a call.
                Type::Text | Type::Any => self.wants(argument, *wanted),
                _ => {
                    let found = self.type_of(argument);
                    if found.is_some_and(|found| found != *wanted && found != Type::Any) {
                        let what = format!("{name} takes {} here", wanted.name());
                        self.complain(&argument.place, what);
                    }
                }
            }
        }
        if let Some((_, index)) = PATTERNS.iter().find(|(known, _)| *known == name) {
            match &arguments[*index].node {
                Node::Text(pattern) => self.pattern(&arguments[*index].place, pattern),
                _ => self.complain(place, format!("{name} takes only a literal pattern")),
            }
        }
        Some(signature.result)
    }

    /// By its place a name can only be a table's here, also where a backend has the same name.
    fn table(&mut self, function: &str, argument: &Expression) {
        let name = match &argument.node {
            Node::Name(name) => name.as_str(),
            _ => "",
        };
        if !self.program.tables.contains_key(name) {
            self.complain(&argument.place, format!("{function} takes a table here"));
        }
    }

    /// A bare word: a header's name for std.collect, else a word that the function knows itself.
    fn word(&mut self, function: &str, argument: &Expression) {
        let Node::Name(word) = &argument.node else {
            return self.complain(&argument.place, format!("{function} takes a bare word here"));
        };
        if function.starts_with("std.") {
            if super::headers::split(word).is_none() {
                self.complain(&argument.place, format!("{word} is no header"));
            }
            self.name(&argument.place, word);
        }
    }
}
