//! The tree that the parser builds, the lint walks and the interpreter runs.

use std::collections::BTreeMap;

use super::lexer::Place;

#[derive(Clone, Debug)]
pub struct Expression {
    pub place: Place,
    pub node: Node,
}

#[derive(Clone, Debug)]
pub enum Node {
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    /// In nanoseconds.
    Span(i64),
    Name(String),
    Call(String, Vec<Expression>),
    Not(Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Compare(&'static str, Box<Expression>, Box<Expression>),
    /// `~`, or `!~` when the flag is false.
    Match(bool, Box<Expression>, Box<Expression>),
    Join(Vec<Expression>),
    Group(Box<Expression>),
}

impl Node {
    pub fn is_literal(&self) -> bool {
        use Node::{Bool, Float, Integer, Span, Text};
        matches!(self, Text(_) | Integer(_) | Float(_) | Bool(_) | Span(_))
    }
}

pub type Block = Vec<Statement>;

#[derive(Clone, Debug)]
pub struct Statement {
    pub place: Place,
    pub action: Action,
}

#[derive(Clone, Debug)]
pub enum Action {
    Declare { name: String, kind: String, value: Option<Expression> },
    Set { name: String, operator: &'static str, value: Expression },
    Add { name: String, value: Expression },
    Unset { name: String },
    If { branches: Vec<(Expression, Block)>, otherwise: Block },
    Return { state: Option<String> },
    Error { status: Option<Expression>, response: Option<Expression> },
    Restart,
    Esi,
    Synthetic { is_base64: bool, value: Expression },
    Call { name: String },
    Log { value: Expression },
    Function { name: String, arguments: Vec<Expression> },
}

#[derive(Clone, Debug)]
pub struct Subroutine {
    pub name: String,
    pub place: Place,
    /// Comments just above it: annotations.
    pub comments: Vec<String>,
    /// Comments inside it: Fastly's macro.
    pub inner_comments: Vec<String>,
    pub block: Block,
}

#[derive(Clone, Debug)]
pub struct Table {
    pub kind: String,
    pub rows: BTreeMap<String, Expression>,
}

/// An address, the length of its prefix, and whether it is excluded.
#[derive(Clone, Debug)]
pub struct AclEntry {
    pub address: String,
    pub prefix: Option<u8>,
    pub is_excluded: bool,
}

/// falco's group of tests: one state for all of them, and hooks by name.
#[derive(Clone, Debug)]
pub struct Group {
    pub name: String,
    pub hooks: BTreeMap<String, Block>,
    pub tests: Vec<Subroutine>,
}

/// One file with everything that it includes.
#[derive(Clone, Debug, Default)]
pub struct Program {
    pub subroutines: Vec<Subroutine>,
    pub tables: BTreeMap<String, Table>,
    pub acls: BTreeMap<String, Vec<AclEntry>>,
    pub backends: Vec<String>,
    pub groups: Vec<Group>,
}

impl Program {
    pub fn subroutine(&self, name: &str) -> Option<&Subroutine> {
        self.subroutines.iter().find(|subroutine| subroutine.name == name)
    }
}

/// The value of `@name: value` in a comment, if it is there.
pub fn annotation<'a>(comments: &'a [String], name: &str) -> Option<&'a str> {
    comments.iter().find_map(|comment| {
        let text = comment.trim_start_matches([' ', '*', '/', '#', '\t']);
        Some(text.strip_prefix('@')?.strip_prefix(name)?.strip_prefix(':')?.trim())
    })
}
