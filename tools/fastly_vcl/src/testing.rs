//! falco's unit tests: the functions `testing.*` and `assert.*`, and the runner of a test file.

use super::lexer::{Complaint, Place, complain};
use super::lint;
use super::machine::Machine;
use super::regexes;
use super::run::Flow;
use super::syntax::{Group, Node, Program, Subroutine, annotation};
use super::values::Value;
use super::variables::{self, SCOPES};

/// The states that a test may ask for; any other word is a slip of the pen.
const STATES: [&str; 11] = [
    "lookup",
    "pass",
    "hash",
    "error",
    "restart",
    "deliver",
    "fetch",
    "deliver_stale",
    "upgrade",
    "log",
    "none",
];
const ANNOTATIONS: [&str; 3] = ["scope:", "suite:", "skip"];

/// How a file of tests went.
#[derive(Default)]
pub struct Outcome {
    pub count: usize,
    pub failures: Vec<String>,
}

#[cfg(test)]
/// Runs the one test of a file with a limit met at that place; how many places it came by.
pub fn run_limited(program: &Program, test: &Program, limit_at: usize) -> (Outcome, usize) {
    let mut outcome = Outcome::default();
    let mut machine = Machine::new(program, test);
    machine.limit_at = Some(limit_at);
    run_one(&mut machine, &test.subroutines[0], None, &mut outcome);
    (outcome, machine.limitable)
}

/// Runs every test of a file against a program.
pub fn run(program: &Program, test: &Program) -> Outcome {
    let mut outcome = Outcome::default();
    for subroutine in &test.subroutines {
        // As in falco: one state for all scopes of one subroutine.
        let mut machine = Machine::new(program, test);
        run_one(&mut machine, subroutine, None, &mut outcome);
    }
    for group in &test.groups {
        let mut machine = Machine::new(program, test);
        for subroutine in &group.tests {
            run_one(&mut machine, subroutine, Some(group), &mut outcome);
        }
    }
    outcome
}

fn run_one<'a>(
    machine: &mut Machine<'a>,
    subroutine: &'a Subroutine,
    group: Option<&'a Group>,
    outcome: &mut Outcome,
) {
    let comments = &subroutine.comments;
    let suite = annotation(comments, "suite").unwrap_or(&subroutine.name);
    let title = group.map_or(suite.to_owned(), |group| format!("{}: {suite}", group.name));
    let fail = |outcome: &mut Outcome, scope: &str, complaint: &Complaint| {
        let place = &complaint.place;
        let line = format!("{place}: [{scope}] {title}\n    {}", complaint.what);
        outcome.failures.push(line);
    };
    if let Some(unknown) = unknown_annotation(comments) {
        let what = format!("@{unknown} means nothing here");
        let complaint = Complaint { place: subroutine.place.clone(), what };
        return fail(outcome, "", &complaint);
    }
    if comments.iter().any(|comment| comment.trim_start_matches(['/', '#', ' ']) == "@skip") {
        return;
    }
    for scope in scopes(subroutine) {
        outcome.count += 1;
        let hook = |when: &str| group.and_then(|group| group.hooks.get(&format!("{when}_{scope}")));
        let blocks = [hook("before"), Some(&subroutine.block), hook("after")];
        let blocks: Vec<_> = blocks.into_iter().flatten().collect();
        let names = merged(machine.program, machine.test);
        let mut complaints: Vec<Complaint> =
            blocks.iter().flat_map(|block| lint::block(&names, &scope, true, block)).collect();
        if !lint::is_scope(&scope) {
            let what = format!("there is no scope {scope}");
            complaints.push(Complaint { place: subroutine.place.clone(), what });
        }
        if complaints.is_empty() {
            machine.scope.clone_from(&scope);
            machine.locals.clear();
            machine.groups.clear();
            for block in blocks {
                if let Err(complaint) = machine.block(block) {
                    complaints.push(complaint);
                    break;
                }
            }
        }
        for complaint in &complaints {
            fail(outcome, &scope, complaint);
        }
    }
}

/// The names that a test may use: the program's, and the test file's own tables.
fn merged(program: &Program, test: &Program) -> Program {
    let mut names = program.clone();
    names.tables.extend(test.tables.clone());
    names.acls.extend(test.acls.clone());
    names.backends.extend(test.backends.clone());
    names
}

fn unknown_annotation(comments: &[String]) -> Option<String> {
    comments.iter().find_map(|comment| {
        let text = comment.trim_start_matches(['/', '#', '*', ' ']).strip_prefix('@')?;
        let is_known = ANNOTATIONS.iter().any(|known| text.starts_with(known));
        (!is_known).then(|| text.to_owned())
    })
}

/// By annotation, else by the end of the name, else recv.
fn scopes(subroutine: &Subroutine) -> Vec<String> {
    if let Some(scopes) = annotation(&subroutine.comments, "scope") {
        return scopes.split(',').map(|scope| scope.trim().to_lowercase()).collect();
    }
    let ends = |scope: &str| subroutine.name.ends_with(&format!("_{scope}"));
    let named = SCOPES.iter().find(|(scope, _)| ends(scope));
    vec![named.map_or("recv", |(scope, _)| scope).to_owned()]
}

pub fn call(
    machine: &mut Machine,
    place: &Place,
    name: &str,
    values: Vec<Value>,
) -> Result<Value, Complaint> {
    match name.strip_prefix("testing.") {
        Some(function) => prepare(machine, place, function, &values),
        None => {
            let function = name.trim_start_matches("assert.");
            let Err(what) = assertion(machine, function, &values) else {
                return Ok(Value::Nothing);
            };
            // A message of the test's own stands before ours.
            let message = own_message(function, &values);
            let message = message.map(|message| format!("{message}: ")).unwrap_or_default();
            complain(place, format!("{message}{name}: {what}"))
        }
    }
}

/// The last argument, where there is one more than the assertion itself takes.
fn own_message(function: &str, values: &[Value]) -> Option<String> {
    let own = match function {
        "restart" | "not_restart" | "not_error" => 0,
        "assert"
        | "true"
        | "false"
        | "is_json"
        | "is_notset"
        | "state"
        | "not_state"
        | "not_subroutine_called" => 1,
        _ => 2,
    };
    values.get(own).and_then(Value::to_text)
}

fn text(values: &[Value], index: usize) -> String {
    super::builtins::text(values, index)
}

fn prepare(
    machine: &mut Machine,
    place: &Place,
    function: &str,
    values: &[Value],
) -> Result<Value, Complaint> {
    let (first, second) = (text(values, 0), text(values, 1));
    match function {
        "call_subroutine" => {
            machine.state = match machine.subroutine(place, &first)? {
                Flow::State(state) => Some(state),
                Flow::On | Flow::Back => None,
            };
        }
        "inject_variable" => {
            let Some(variable) = variables::find(&first) else {
                return complain(place, format!("there is no variable {first}"));
            };
            let value = super::machine::converted(place, variable.kind, values[1].clone())?;
            machine.injected.insert(first, value);
        }
        "override_host" => machine.headers.set("req", "Host", first),
        "fixed_time" => match &values[0] {
            Value::Integer(seconds) => machine.now = Some(seconds * 1_000_000_000),
            Value::Time(time) => machine.now = Some(*time),
            other => match other.to_text().as_deref().and_then(super::dates::parsed) {
                Some(time) => machine.now = Some(time),
                None => return complain(place, format!("{} is no time", other.shown())),
            },
        },
        // May read where the subroutine itself may not.
        "inspect" => return machine.get(place, &first),
        "table_set" => {
            let place = place.clone();
            let node = Node::Text(text(values, 2));
            let Some(table) = machine.tables.get_mut(&first) else {
                return complain(&place, format!("there is no table {first}"));
            };
            table.rows.insert(second, super::syntax::Expression { place, node });
        }
        "table_merge" => {
            let rows = machine.tables.get(&second).map(|table| table.rows.clone());
            let (Some(rows), Some(table)) = (rows, machine.tables.get_mut(&first)) else {
                return complain(place, format!("there is no table {first} or {second}"));
            };
            table.rows.extend(rows);
        }
        "mock" => {
            if first.starts_with("vcl_") || machine.program.subroutine(&first).is_none() {
                return complain(place, format!("{first} cannot be mocked"));
            }
            if machine.test.subroutine(&second).is_none() {
                return complain(place, format!("the test has no sub {second}"));
            }
            machine.mocks.insert(first, second);
        }
        "restore_mock" => drop(machine.mocks.remove(&first)),
        "restore_all_mocks" => machine.mocks.clear(),
        other => return complain(place, format!("there is no testing.{other}")),
    }
    Ok(Value::Nothing)
}

/// `Err` says what was expected and what was there.
fn assertion(machine: &Machine, function: &str, values: &[Value]) -> Result<(), String> {
    let check = |holds: bool, what: String| if holds { Ok(()) } else { Err(what) };
    let (first, second) = (text(values, 0), text(values, 1));
    let shown = |index: usize| values.get(index).map(Value::shown).unwrap_or_default();
    let both = |word: &str| format!("expected {word}{}, got {}", shown(1), shown(0));
    match function {
        "assert" => check(values[0].is_true(), format!("expected something, got {}", shown(0))),
        "true" => check(values[0] == Value::Bool(true), format!("expected true, got {}", shown(0))),
        "false" => {
            check(values[0] == Value::Bool(false), format!("expected false, got {}", shown(0)))
        }
        "is_notset" => check(!values[0].is_set(), format!("expected not set, got {}", shown(0))),
        "is_json" => {
            let parsed = serde_json::from_str::<serde_json::Value>(&first);
            check(parsed.is_ok(), format!("expected JSON, got {}", shown(0)))
        }
        // Types too: "200" is not 200.
        "equal" | "strict_equal" => check(values[0] == values[1], both("")),
        "not_equal" | "not_strict_equal" => check(values[0] != values[1], both("not ")),
        "equal_fold" => check(first.eq_ignore_ascii_case(&second), both("in any case ")),
        "match" => check(is_match(&second, &first)?, both("a match of ")),
        "not_match" => check(!is_match(&second, &first)?, both("no match of ")),
        "contains" => check(first.contains(&second), both("something with ")),
        "not_contains" => check(!first.contains(&second), both("nothing with ")),
        "starts_with" => check(first.starts_with(&second), both("a beginning of ")),
        "ends_with" => check(first.ends_with(&second), both("an end of ")),
        _ => flow_assertion(machine, function, values),
    }
}

fn is_match(pattern: &str, text: &str) -> Result<bool, String> {
    regexes::groups(pattern, text).map(|groups| groups.is_some())
}

/// Those about where the called subroutine went.
fn flow_assertion(machine: &Machine, function: &str, values: &[Value]) -> Result<(), String> {
    let first = text(values, 0);
    let state = machine.state.as_deref().unwrap_or("none");
    let check = |holds: bool, expected: String| {
        if holds { Ok(()) } else { Err(format!("expected {expected}, got state {state}")) }
    };
    match function {
        "state" | "not_state" if !STATES.contains(&first.as_str()) => {
            Err(format!("there is no state {first}"))
        }
        "state" => check(state == first, format!("state {first}")),
        "not_state" => check(state != first, format!("another state than {first}")),
        "restart" => check(state == "restart", "a restart".to_owned()),
        "not_restart" => check(state != "restart", "no restart".to_owned()),
        "not_error" => check(state != "error", "no error".to_owned()),
        "error" => {
            check(state == "error", "an error".to_owned())?;
            let status = machine.values.get("obj.status").cloned().unwrap_or(Value::Nothing);
            if status != values[0] {
                let (expected, got) = (values[0].shown(), status.shown());
                return Err(format!("expected status {expected}, got {got}"));
            }
            let response = machine.values.get("obj.response").cloned().unwrap_or(Value::Nothing);
            if values.len() > 1 && response != values[1] {
                let (expected, got) = (values[1].shown(), response.shown());
                return Err(format!("expected response {expected}, got {got}"));
            }
            Ok(())
        }
        "subroutine_called" | "not_subroutine_called" => {
            let count = machine.called.iter().filter(|called| **called == first).count();
            let is_right = match (function, values.get(1)) {
                ("not_subroutine_called", _) => count == 0,
                (_, Some(Value::Integer(times))) => count as i64 == *times,
                _ => count > 0,
            };
            if is_right { Ok(()) } else { Err(format!("{first} was called {count} times")) }
        }
        other => Err(format!("there is no assert.{other}")),
    }
}
