//! The state of one request, as the subroutines see it: variables, headers, tables, and where it is
//! in its life. A test makes a fresh one. Statements and expressions: `run.rs`.

use std::collections::BTreeMap;

use super::headers::{self, Headers};
use super::lexer::{Complaint, Place, complain};
use super::syntax::{Program, Table};
use super::values::{Type, Value};
use super::variables;

/// What the time is until a test says otherwise: the same in every run, so that no test depends on
/// the day it runs on. The random numbers begin with it too.
const NOW: i64 = 1_795_278_400_000_000_000;

/// Two names of one thing.
const ALIASES: [(&str, &str); 3] = [
    ("req.request", "req.method"),
    ("bereq.request", "bereq.method"),
    ("req.grace", "req.max_stale_if_error"),
];

pub struct Machine<'a> {
    pub program: &'a Program,
    /// The test file, whose subroutines and tables may stand in for the program's.
    pub test: &'a Program,
    pub tables: BTreeMap<String, Table>,
    pub headers: Headers,
    pub values: BTreeMap<String, Value>,
    /// By `testing.inject_variable`; these win over everything.
    pub injected: BTreeMap<String, Value>,
    pub locals: BTreeMap<String, Value>,
    /// `re.group.N` of the last match that matched.
    pub groups: Vec<Option<String>>,
    pub scope: String,
    /// What the last subroutine that a test called returned, if it returned anything.
    pub state: Option<String>,
    pub body: Option<String>,
    pub logs: Vec<String>,
    pub called: Vec<String>,
    pub mocks: BTreeMap<String, String>,
    pub now: Option<i64>,
    pub depth: usize,
    pub random: u64,
    /// How often Fastly could have run into a limit so far.
    pub limitable: usize,
    /// The one of these that does: an expression matches nothing, a function changes nothing.
    pub limit_at: Option<usize>,
}

impl<'a> Machine<'a> {
    /// GET / from nobody in particular, as falco begins its tests.
    pub fn new(program: &'a Program, test: &'a Program) -> Machine<'a> {
        let mut tables = program.tables.clone();
        tables.extend(test.tables.clone());
        let mut machine = Machine {
            program,
            test,
            tables,
            headers: Headers::default(),
            values: BTreeMap::new(),
            injected: BTreeMap::new(),
            locals: BTreeMap::new(),
            groups: Vec::new(),
            scope: String::new(),
            state: None,
            body: None,
            logs: Vec::new(),
            called: Vec::new(),
            mocks: BTreeMap::new(),
            now: None,
            depth: 0,
            random: NOW as u64,
            limitable: 0,
            limit_at: None,
        };
        machine.headers.set("req", "Host", "localhost".to_owned());
        machine
    }

    /// Whether what is done now runs into a limit.
    pub fn is_limited(&mut self) -> bool {
        self.limitable += 1;
        self.limit_at == Some(self.limitable - 1)
    }

    pub fn clock(&self) -> i64 {
        self.now.unwrap_or(NOW)
    }

    /// The next random number: splitmix64, which is not what Fastly uses.
    pub fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn get(&self, place: &Place, name: &str) -> Result<Value, Complaint> {
        if let Some(value) = self.injected.get(name) {
            return Ok(value.clone());
        }
        if let Some(number) = name.strip_prefix("re.group.") {
            let group = number.parse::<usize>().ok().and_then(|number| self.groups.get(number));
            return Ok(Value::Text(group.cloned().flatten()));
        }
        if let Some((object, header)) = headers::split(name) {
            return Ok(Value::Text(self.headers.get(object, header)));
        }
        if let Some(value) = self.locals.get(name).or_else(|| self.values.get(canonical(name))) {
            return Ok(value.clone());
        }
        if let Some(value) = self.derived(place, name)? {
            return Ok(value);
        }
        if self.program.backends.iter().any(|backend| backend == name) {
            return Ok(Value::Backend(name.to_owned()));
        }
        match variables::find(canonical(name)) {
            Some(variable) => Ok(variable.default()),
            None => complain(place, format!("there is no variable {name}")),
        }
    }

    /// What follows from something else.
    fn derived(&self, place: &Place, name: &str) -> Result<Option<Value>, Complaint> {
        for object in ["req", "bereq"] {
            let part = name.strip_prefix(object).and_then(|rest| rest.strip_prefix(".url."));
            if let Some(part) = part {
                let url = self.get(place, &format!("{object}.url"))?.to_text().unwrap_or_default();
                return Ok(Some(Value::text(url_part(&url, part))));
            }
        }
        let now = self.clock();
        Ok(Some(match name {
            "now" | "time.start" | "time.end" => Value::Time(now),
            "now.sec" | "time.start.sec" => Value::text((now / 1_000_000_000).to_string()),
            "time.start.msec" => Value::text((now / 1_000_000).to_string()),
            "LF" => Value::text("\n"),
            "req.topurl" => self.get(place, "req.url")?,
            "client.identity" => Value::Text(self.get(place, "client.ip")?.to_text()),
            "fastly_info.host_header" => self.get(place, "req.http.Host")?,
            "req.is_ipv6" => match self.get(place, "client.ip")? {
                Value::Address(Some(address)) => Value::Bool(address.is_ipv6()),
                _ => Value::Bool(false),
            },
            // The fetch side is a second server of the same place, as in falco.
            "fastly.ff.visits_this_service" => {
                let is_inner = matches!(self.scope.as_str(), "hit" | "miss" | "fetch");
                Value::Integer(i64::from(is_inner))
            }
            "req.backend.name" | "beresp.backend.name" => {
                Value::Text(self.get(place, "req.backend")?.to_text())
            }
            "testing.state" => Value::text(self.state.clone().unwrap_or_default()),
            "testing.synthetic_body" => Value::text(self.body.clone().unwrap_or_default()),
            _ => return Ok(None),
        }))
    }

    /// Sets a variable to a value that the lint has found fitting.
    pub fn set(&mut self, place: &Place, name: &str, value: Value) -> Result<(), Complaint> {
        if let Some((object, header)) = headers::split(name) {
            match value.to_text() {
                Some(text) => self.headers.set(object, header, text),
                // A header set to what is not set is not set, and not empty.
                None => self.headers.unset(object, header),
            }
            return Ok(());
        }
        let kind = match self.locals.get(name) {
            Some(old) => old.kind(),
            None => match variables::find(canonical(name)) {
                Some(variable) => variable.kind,
                None => return complain(place, format!("there is no variable {name}")),
            },
        };
        let value = converted(place, kind, value)?;
        if let Some(local) = self.locals.get_mut(name) {
            *local = value;
        } else {
            self.values.insert(canonical(name).to_owned(), value);
        }
        Ok(())
    }

    pub fn unset(&mut self, name: &str) {
        if let Some((object, header)) = headers::split(name) {
            self.headers.unset(object, header);
        } else if let Some(local) = self.locals.get_mut(name) {
            *local = local.kind().blank();
        } else {
            self.values.remove(canonical(name));
        }
    }
}

fn canonical(name: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, real)| real)
}

fn url_part(url: &str, part: &str) -> String {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let (directory, base) = path.rsplit_once('/').unwrap_or(("", path));
    match part {
        "path" => path.to_owned(),
        "qs" => query.to_owned(),
        "dirname" => if directory.is_empty() { "/" } else { directory }.to_owned(),
        "basename" => base.to_owned(),
        _ => base.rsplit_once('.').map(|(_, ending)| ending).unwrap_or_default().to_owned(),
    }
}

pub fn converted(place: &Place, kind: Type, value: Value) -> Result<Value, Complaint> {
    let found = value.kind();
    Ok(match (kind, value) {
        // Only headers can become "not set" by assignment; other strings become empty.
        (Type::Text, value) => Value::text(value.to_text().unwrap_or_default()),
        (_, value) if kind == found => value,
        (Type::Float, Value::Integer(value)) => Value::Float(value as f64),
        (Type::Integer, Value::Float(value)) => Value::Integer(value as i64),
        (Type::Integer, Value::Span(value) | Value::Time(value)) => {
            Value::Integer(value / 1_000_000_000)
        }
        (Type::Span, Value::Integer(value)) => Value::Span(value.saturating_mul(1_000_000_000)),
        (Type::Span, Value::Float(value)) => Value::Span((value * 1e9) as i64),
        (Type::Address, Value::Text(Some(text))) => match text.parse() {
            Ok(address) => Value::Address(Some(address)),
            Err(_) => return complain(place, format!("{text:?} is no address")),
        },
        (kind, value) => {
            let what = format!("{} cannot become {}", value.shown(), kind.name());
            return complain(place, what);
        }
    })
}
