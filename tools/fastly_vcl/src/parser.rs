//! Tokens to declarations and statements. An `include` is resolved here, beside the file that
//! names it, so everything after the parser sees one program. Expressions: `expressions.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::lexer::{Complaint, Kind, Place, Token, complain, tokens};
use super::syntax::{
    AclEntry, Action, Block, Expression, Group, Program, Statement, Subroutine, Table,
};

/// A file that includes itself must not take the test down with it.
const INCLUDE_DEPTH_MAX: usize = 10;
const ASSIGNMENTS: [&str; 6] = ["=", "+=", "-=", "*=", "/=", "%="];

pub struct Parser {
    pub(super) tokens: Vec<Token>,
    pub(super) at: usize,
    directory: PathBuf,
    depth: usize,
}

/// A file of declarations: main.vcl, an init snippet, a test file.
pub fn program(path: &Path) -> Result<Program, Complaint> {
    let mut program = Program::default();
    Parser::open(path, 0)?.declarations(&mut program)?;
    Ok(program)
}

#[cfg(test)]
/// A bare snippet: statements, and the comments on its first line.
pub fn snippet(path: &Path) -> Result<(Block, Vec<String>), Complaint> {
    let mut parser = Parser::open(path, 0)?;
    let comments = parser.tokens[0].comments.clone();
    Ok((parser.statements_to_end()?, comments))
}

#[cfg(test)]
/// Whether a file holds declarations rather than statements.
pub fn declares(path: &Path) -> Result<bool, Complaint> {
    let parser = Parser::open(path, 0)?;
    let words = ["sub", "table", "acl", "backend", "describe"];
    Ok(matches!(&parser.tokens[0].kind, Kind::Name(word) if words.contains(&word.as_str())))
}

#[cfg(test)]
/// A program from a text, for the tests of the interpreter itself.
pub fn program_from(file: &str, text: &str) -> Result<Program, Complaint> {
    let mut program = Program::default();
    let tokens = tokens(file, text)?;
    let mut parser = Parser { tokens, at: 0, directory: PathBuf::new(), depth: 0 };
    parser.declarations(&mut program)?;
    Ok(program)
}

impl Parser {
    fn open(path: &Path, depth: usize) -> Result<Parser, Complaint> {
        let place = Place { file: path.display().to_string().into(), line: 1 };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return complain(&place, format!("cannot be read: {error}")),
        };
        let directory = path.parent().expect("a file is in a directory").to_owned();
        Ok(Parser { tokens: tokens(&place.file, &text)?, at: 0, directory, depth })
    }

    pub(super) fn peek(&self) -> &Kind {
        &self.tokens[self.at].kind
    }

    pub(super) fn place(&self) -> Place {
        self.tokens[self.at].place.clone()
    }

    pub(super) fn next(&mut self) -> Kind {
        let kind = self.peek().clone();
        // The end stays the end, however often it is asked for.
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        kind
    }

    pub(super) fn is_at(&self, symbol: &str) -> bool {
        matches!(self.peek(), Kind::Symbol(found) if *found == symbol)
    }

    pub(super) fn accept(&mut self, symbol: &str) -> bool {
        let is_there = self.is_at(symbol);
        if is_there {
            self.next();
        }
        is_there
    }

    pub(super) fn expect(&mut self, symbol: &str) -> Result<(), Complaint> {
        if self.accept(symbol) {
            return Ok(());
        }
        complain(&self.place(), format!("{symbol:?} is wanted here, not {:?}", self.peek()))
    }

    fn name(&mut self) -> Result<String, Complaint> {
        let place = self.place();
        match self.next() {
            Kind::Name(name) => Ok(name),
            other => complain(&place, format!("a name is wanted here, not {other:?}")),
        }
    }

    fn text(&mut self) -> Result<String, Complaint> {
        let place = self.place();
        match self.next() {
            Kind::Text(text) => Ok(text),
            other => complain(&place, format!("a string is wanted here, not {other:?}")),
        }
    }

    fn declarations(&mut self, program: &mut Program) -> Result<(), Complaint> {
        let mut names = BTreeSet::new();
        while *self.peek() != Kind::End {
            let place = self.place();
            let comments = self.tokens[self.at].comments.clone();
            let word = self.name()?;
            if word == "include" {
                self.included(&place)?.declarations(program)?;
                continue;
            }
            let name = self.name()?;
            // Two tests of falco's may have one name, two of anything else may not.
            let is_test = place.file.ends_with("test.vcl");
            if !names.insert((word.clone(), name.clone())) && !is_test {
                return complain(&place, format!("{word} {name} is declared twice"));
            }
            match word.as_str() {
                "sub" => program.subroutines.push(self.subroutine(name, place, comments)?),
                "table" => {
                    let table = self.table()?;
                    program.tables.insert(name, table);
                }
                "acl" => {
                    let entries = self.acl()?;
                    program.acls.insert(name, entries);
                }
                "backend" => {
                    self.properties()?;
                    program.backends.push(name);
                }
                "describe" => program.groups.push(self.group(name)?),
                other => return complain(&place, format!("{other:?} declares nothing we know")),
            }
        }
        Ok(())
    }

    /// The parser of the file that an `include` names; the word itself is behind us.
    fn included(&mut self, place: &Place) -> Result<Parser, Complaint> {
        let name = self.text()?;
        self.expect(";")?;
        if self.depth == INCLUDE_DEPTH_MAX {
            return complain(place, format!("include {name:?} goes too deep"));
        }
        let file = if name.ends_with(".vcl") { name } else { format!("{name}.vcl") };
        let path = self.directory.join(file);
        if !path.is_file() {
            return complain(place, format!("include: there is no {}", path.display()));
        }
        Parser::open(&path, self.depth + 1)
    }

    fn subroutine(
        &mut self,
        name: String,
        place: Place,
        comments: Vec<String>,
    ) -> Result<Subroutine, Complaint> {
        let begin = self.at + 1;
        let block = self.block()?;
        let inside = &self.tokens[begin..self.at];
        let inner_comments = inside.iter().flat_map(|token| token.comments.clone()).collect();
        Ok(Subroutine { name, place, comments, inner_comments, block })
    }

    fn table(&mut self) -> Result<Table, Complaint> {
        let kind = if self.is_at("{") { "STRING".to_owned() } else { self.name()? };
        self.expect("{")?;
        let mut rows = BTreeMap::new();
        while !self.accept("}") {
            let place = self.place();
            let key = self.text()?;
            self.expect(":")?;
            let value = self.unary()?;
            if rows.insert(key.clone(), value).is_some() {
                return complain(&place, format!("{key:?} is in the table twice"));
            }
            if !self.accept(",") && !self.is_at("}") {
                self.expect(",")?;
            }
        }
        Ok(Table { kind, rows })
    }

    fn acl(&mut self) -> Result<Vec<AclEntry>, Complaint> {
        self.expect("{")?;
        let mut entries = Vec::new();
        while !self.accept("}") {
            let is_excluded = self.accept("!");
            let place = self.place();
            let address = self.text()?;
            let mut prefix = None;
            if self.accept("/") {
                match self.next() {
                    Kind::Integer(bits @ 0..=128) => prefix = Some(bits as u8),
                    other => return complain(&place, format!("{other:?} is no prefix length")),
                }
            }
            if address != "localhost" && address.parse::<std::net::IpAddr>().is_err() {
                return complain(&place, format!("{address:?} is no address"));
            }
            self.expect(";")?;
            entries.push(AclEntry { address, prefix, is_excluded });
        }
        Ok(entries)
    }

    /// `{ .name = value; .probe = { … } }`, well formed; nothing here connects to a backend.
    fn properties(&mut self) -> Result<(), Complaint> {
        self.expect("{")?;
        while !self.accept("}") {
            self.expect(".")?;
            self.name()?;
            self.expect("=")?;
            if self.is_at("{") {
                self.properties()?;
                self.accept(";");
            } else {
                self.expression()?;
                self.expect(";")?;
            }
        }
        Ok(())
    }

    fn group(&mut self, name: String) -> Result<Group, Complaint> {
        self.expect("{")?;
        let mut group = Group { name, hooks: BTreeMap::new(), tests: Vec::new() };
        while !self.accept("}") {
            let place = self.place();
            let comments = self.tokens[self.at].comments.clone();
            let word = self.name()?;
            if word == "sub" {
                let name = self.name()?;
                group.tests.push(self.subroutine(name, place, comments)?);
            } else if word.starts_with("before_") || word.starts_with("after_") {
                let block = self.block()?;
                if group.hooks.insert(word.clone(), block).is_some() {
                    return complain(&place, format!("{word} is there twice"));
                }
            } else {
                return complain(&place, format!("{word:?} does not belong into a group"));
            }
        }
        Ok(group)
    }

    fn block(&mut self) -> Result<Block, Complaint> {
        self.expect("{")?;
        let mut block = Vec::new();
        while !self.is_at("}") {
            self.statement(&mut block)?;
        }
        self.expect("}")?;
        Ok(block)
    }

    fn statements_to_end(&mut self) -> Result<Block, Complaint> {
        let mut block = Vec::new();
        while *self.peek() != Kind::End {
            self.statement(&mut block)?;
        }
        Ok(block)
    }

    fn statement(&mut self, block: &mut Block) -> Result<(), Complaint> {
        let place = self.place();
        if self.is_at("{") {
            block.extend(self.block()?);
            return Ok(());
        }
        let word = self.name()?;
        let action = match word.as_str() {
            "include" => {
                block.extend(self.included(&place)?.statements_to_end()?);
                return Ok(());
            }
            // The only statement that ends with a brace.
            "if" => {
                let action = self.branches()?;
                block.push(Statement { place, action });
                return Ok(());
            }
            "declare" => self.declaration()?,
            "set" => self.assignment()?,
            "add" => {
                let name = self.name()?;
                self.expect("=")?;
                Action::Add { name, value: self.expression()? }
            }
            "unset" | "remove" => Action::Unset { name: self.name()? },
            "return" => self.return_state()?,
            "error" => self.error_statement()?,
            "restart" => Action::Restart,
            "esi" => Action::Esi,
            "synthetic" => Action::Synthetic { is_base64: false, value: self.expression()? },
            "synthetic.base64" => Action::Synthetic { is_base64: true, value: self.expression()? },
            "call" => self.call_statement()?,
            "log" => Action::Log { value: self.expression()? },
            _ if self.is_at("(") => Action::Function { arguments: self.arguments()?, name: word },
            _ => return complain(&place, format!("{word:?} is no statement we know")),
        };
        self.expect(";")?;
        block.push(Statement { place, action });
        Ok(())
    }

    fn branches(&mut self) -> Result<Action, Complaint> {
        let mut branches = vec![self.branch()?];
        let mut otherwise = Vec::new();
        loop {
            let word =
                if let Kind::Name(word) = self.peek() { word.clone() } else { String::new() };
            match word.as_str() {
                "elsif" | "elseif" => {
                    self.next();
                    branches.push(self.branch()?);
                }
                "else" => {
                    self.next();
                    if *self.peek() == Kind::Name("if".to_owned()) {
                        self.next();
                        branches.push(self.branch()?);
                        continue;
                    }
                    otherwise = self.block()?;
                    return Ok(Action::If { branches, otherwise });
                }
                _ => return Ok(Action::If { branches, otherwise }),
            }
        }
    }

    fn branch(&mut self) -> Result<(Expression, Block), Complaint> {
        self.expect("(")?;
        let condition = self.expression()?;
        self.expect(")")?;
        Ok((condition, self.block()?))
    }

    fn declaration(&mut self) -> Result<Action, Complaint> {
        let place = self.place();
        let local = self.name()?;
        let name = self.name()?;
        if local != "local" || !name.starts_with("var.") {
            return complain(&place, "it must read: declare local var.name TYPE;");
        }
        let kind = self.name()?;
        let value = if self.accept("=") { Some(self.expression()?) } else { None };
        Ok(Action::Declare { name, kind, value })
    }

    fn assignment(&mut self) -> Result<Action, Complaint> {
        let name = self.name()?;
        let place = self.place();
        match self.next() {
            Kind::Symbol(operator) if ASSIGNMENTS.contains(&operator) => {
                Ok(Action::Set { name, operator, value: self.expression()? })
            }
            other => complain(&place, format!("an assignment is wanted here, not {other:?}")),
        }
    }

    fn return_state(&mut self) -> Result<Action, Complaint> {
        if self.is_at(";") {
            return Ok(Action::Return { state: None });
        }
        self.expect("(")?;
        let state = Some(self.name()?);
        self.expect(")")?;
        Ok(Action::Return { state })
    }

    fn error_statement(&mut self) -> Result<Action, Complaint> {
        let status = if self.is_at(";") { None } else { Some(self.unary()?) };
        let response = if self.is_at(";") { None } else { Some(self.expression()?) };
        Ok(Action::Error { status, response })
    }

    fn call_statement(&mut self) -> Result<Action, Complaint> {
        let name = self.name()?;
        if self.accept("(") {
            self.expect(")")?;
        }
        Ok(Action::Call { name })
    }
}
