//! What is wrong with a program before it runs: names that nobody knows, variables read or set where
//! Fastly does not have them, values of the wrong type, statements in the wrong subroutine.
//! Expressions: `typing.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::lexer::{Complaint, Place};
use super::syntax::{Action, Block, Expression, Node, Program, Statement, Subroutine, annotation};
use super::values::Type;
use super::variables::{self, SCOPES};

/// Where each subroutine may go on to, by Fastly's table of the request's life.
const RETURNS: [(&str, &[&str]); 9] = [
    ("recv", &["lookup", "pass", "error", "restart", "upgrade"]),
    ("hash", &["hash"]),
    ("hit", &["deliver", "pass", "error", "restart"]),
    ("miss", &["fetch", "deliver_stale", "pass", "error"]),
    ("pass", &["pass", "error"]),
    ("fetch", &["deliver", "deliver_stale", "pass", "error", "restart"]),
    ("error", &["deliver", "deliver_stale", "restart"]),
    ("deliver", &["deliver", "restart"]),
    ("log", &["deliver"]),
];

/// The statements that do not stand everywhere.
const PLACES: [(&str, &[&str]); 4] = [
    ("error", &["recv", "hit", "miss", "pass", "fetch"]),
    ("restart", &["recv", "hit", "fetch", "error", "deliver"]),
    ("esi", &["fetch"]),
    ("synthetic", &["error"]),
];

pub struct Lint<'a> {
    pub(super) program: &'a Program,
    pub(super) scope: &'a str,
    pub(super) locals: BTreeMap<String, Type>,
    pub(super) is_test: bool,
    pub complaints: Vec<Complaint>,
}

/// All complaints about the subroutines of a program.
pub fn program(program: &Program, wants_macros: bool) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for subroutine in &program.subroutines {
        let scopes = scopes(program, subroutine, &mut BTreeSet::new());
        if scopes.is_empty() {
            let what = format!("nobody calls {}, and no `@scope:` says where", subroutine.name);
            complaints.push(Complaint { place: subroutine.place.clone(), what });
        }
        for scope in scopes {
            complaints.extend(block(program, &scope, false, &subroutine.block));
        }
        if wants_macros {
            complaints.extend(missing_macro(subroutine));
        }
    }
    complaints
}

/// Complaints about one block where it stands.
pub fn block(program: &Program, scope: &str, is_test: bool, block: &Block) -> Vec<Complaint> {
    let locals = BTreeMap::new();
    let mut lint = Lint { program, scope, locals, is_test, complaints: Vec::new() };
    lint.block(block);
    lint.complaints
}

pub fn is_scope(name: &str) -> bool {
    SCOPES.iter().any(|(known, _)| *known == name)
}

/// Where a subroutine runs: by its name, by annotation, or by who calls it.
fn scopes(program: &Program, subroutine: &Subroutine, seen: &mut BTreeSet<String>) -> Vec<String> {
    let name = &subroutine.name;
    if let Some(scope) = name.strip_prefix("vcl_") {
        return if is_scope(scope) { vec![scope.to_owned()] } else { Vec::new() };
    }
    if let Some(scopes) = annotation(&subroutine.comments, "scope") {
        return scopes.split(',').map(|scope| scope.trim().to_owned()).collect();
    }
    let suffix = SCOPES.iter().find(|(scope, _)| name.ends_with(&format!("_{scope}")));
    if let Some((scope, _)) = suffix {
        return vec![(*scope).to_owned()];
    }
    if !seen.insert(name.clone()) {
        return Vec::new();
    }
    let callers = program.subroutines.iter().filter(|caller| calls(&caller.block, name));
    let found: BTreeSet<String> =
        callers.flat_map(|caller| scopes(program, caller, seen)).collect();
    found.into_iter().collect()
}

fn calls(block: &Block, wanted: &str) -> bool {
    block.iter().any(|statement| match &statement.action {
        Action::Call { name } => name == wanted,
        Action::If { branches, otherwise } => {
            branches.iter().any(|(_, block)| calls(block, wanted)) || calls(otherwise, wanted)
        }
        _ => false,
    })
}

/// Without `#FASTLY recv` in it a subroutine loses what Fastly puts there, shielding above all.
fn missing_macro(subroutine: &Subroutine) -> Option<Complaint> {
    let scope = subroutine.name.strip_prefix("vcl_")?;
    let wanted = format!("FASTLY {scope}").to_uppercase();
    let is_macro = |comment: &String| {
        comment.trim_start_matches(['#', '/', '*', ' ']).to_uppercase().starts_with(&wanted)
    };
    if subroutine.inner_comments.iter().any(is_macro) {
        return None;
    }
    let what = format!("{} has no `#FASTLY {scope}`", subroutine.name);
    Some(Complaint { place: subroutine.place.clone(), what })
}

impl Lint<'_> {
    pub(super) fn complain(&mut self, place: &Place, what: String) {
        self.complaints.push(Complaint { place: place.clone(), what });
    }

    fn block(&mut self, block: &Block) {
        for statement in block {
            self.statement(statement);
        }
    }

    fn statement(&mut self, statement: &Statement) {
        let place = &statement.place;
        match &statement.action {
            Action::Declare { name, kind, value } => self.declaration(place, name, kind, value),
            Action::Set { name, operator, value } => self.assignment(place, name, operator, value),
            Action::Add { name, value } => {
                if super::headers::split(name).is_none() || name.contains(':') {
                    self.complain(place, format!("add is for whole headers, not {name}"));
                }
                self.assignment(place, name, "=", value);
            }
            Action::Unset { name } => self.unset(place, name),
            Action::If { branches, otherwise } => {
                for (condition, block) in branches {
                    self.condition(condition);
                    self.block(block);
                }
                self.block(otherwise);
            }
            Action::Return { state } => self.return_state(place, state.as_deref()),
            Action::Error { status, response } => {
                self.stands_here(place, "error");
                if let Some(status) = status {
                    self.wants(status, Type::Integer);
                }
                if let Some(response) = response {
                    self.wants(response, Type::Text);
                }
            }
            Action::Restart => self.stands_here(place, "restart"),
            Action::Esi => self.stands_here(place, "esi"),
            Action::Synthetic { value, .. } => {
                self.stands_here(place, "synthetic");
                self.wants(value, Type::Text);
            }
            Action::Log { value } => self.wants(value, Type::Text),
            Action::Call { name } => {
                if self.program.subroutine(name).is_none() {
                    self.complain(place, format!("there is no sub {name}"));
                }
            }
            Action::Function { name, arguments } => {
                let result = self.call(place, name, arguments);
                if result.is_some_and(|result| result != Type::Nothing) {
                    self.complain(place, format!("the result of {name} is thrown away"));
                }
            }
        }
    }

    fn stands_here(&mut self, place: &Place, statement: &str) {
        let known = PLACES.iter().find(|(name, _)| *name == statement);
        let (_, scopes) = known.expect("only those are asked for");
        if !scopes.contains(&self.scope) {
            self.complain(place, format!("{statement} does not stand in {}", self.scope));
        }
    }

    fn return_state(&mut self, place: &Place, state: Option<&str>) {
        let Some(state) = state else { return };
        let known = RETURNS.iter().find(|(scope, _)| *scope == self.scope);
        if !known.is_some_and(|(_, states)| states.contains(&state)) {
            self.complain(place, format!("return({state}) does not stand in {}", self.scope));
        }
    }

    fn declaration(&mut self, place: &Place, name: &str, kind: &str, value: &Option<Expression>) {
        use Type::{Address, Backend, Bool, Float, Integer, Span, Text, Time};
        let kind = match Type::named(kind) {
            Some(kind @ (Text | Integer | Float | Bool | Span | Time | Address | Backend)) => kind,
            _ => return self.complain(place, format!("{kind} is no type of a local variable")),
        };
        if self.locals.insert(name.to_owned(), kind).is_some() {
            self.complain(place, format!("{name} is declared twice"));
        }
        if let Some(value) = value {
            self.assignment(place, name, "=", value);
        }
    }

    fn unset(&mut self, place: &Place, name: &str) {
        if name.starts_with("var.") {
            if !self.locals.contains_key(name) {
                self.complain(place, format!("{name} is not declared"));
            }
            return;
        }
        match variables::find(name) {
            None => self.complain(place, format!("there is no variable {name}")),
            Some(variable) if !variable.can_be_unset => {
                self.complain(place, format!("{name} cannot be unset"));
            }
            Some(variable) => {
                let is_header = super::headers::split(name).is_some();
                if is_header && !variable.may_be_set(self.scope) {
                    let what = format!("{name} is not there to be unset in {}", self.scope);
                    self.complain(place, what);
                }
            }
        }
    }

    /// The type of what is assigned to, if it may be.
    fn target(&mut self, place: &Place, name: &str) -> Option<Type> {
        if name.starts_with("var.") {
            let kind = self.locals.get(name).copied();
            if kind.is_none() {
                self.complain(place, format!("{name} is not declared"));
            }
            return kind;
        }
        let Some(variable) = variables::find(name) else {
            self.complain(place, format!("there is no variable {name}"));
            return None;
        };
        if !variable.may_be_set(self.scope) {
            self.complain(place, format!("{name} cannot be set in {}", self.scope));
        }
        Some(variable.kind)
    }

    fn assignment(&mut self, place: &Place, name: &str, operator: &str, value: &Expression) {
        let target = self.target(place, name);
        // A bare comparison after `=` is no VCL: it wants parentheses.
        if matches!(
            value.node,
            Node::Not(_) | Node::And(..) | Node::Or(..) | Node::Compare(..) | Node::Match(..)
        ) {
            self.complain(place, "what is compared in `set` wants parentheses".to_owned());
        }
        let found = self.type_of(value);
        let (Some(target), Some(found)) = (target, found) else { return };
        let fits = match operator {
            "=" => assignable(target, found, value.node.is_literal()),
            "+=" if target == Type::Text => assignable(target, found, value.node.is_literal()),
            "+=" | "-=" if target == Type::Time => found == Type::Span,
            "%=" => target == Type::Integer && found == Type::Integer,
            "*=" | "/=" => target.is_number() && matches!(found, Type::Integer | Type::Float),
            _ => target.is_number() && assignable(target, found, value.node.is_literal()),
        };
        if !fits {
            let (target, found) = (target.name(), found.name());
            self.complain(place, format!("{name} is {target}: `{operator}` takes no {found}"));
        }
    }
}

/// What `=` converts. Literals are not converted: `set req.http.A = 1;` is an error at Fastly.
pub(super) fn assignable(target: Type, found: Type, is_literal: bool) -> bool {
    use Type::{Acl, Address, Any, Bool, Float, Integer, Nothing, Span, Table, Text, Time, Word};
    match (target, found) {
        _ if target == found || target == Any || found == Any => true,
        (Text, Acl | Table | Word | Nothing) => false,
        (Text, Bool) => true,
        (Text, _) => !is_literal,
        (Address, Text) => is_literal,
        (Float, Integer) => true,
        (Integer, Float | Span | Time) | (Span, Integer | Float) => !is_literal,
        _ => false,
    }
}
