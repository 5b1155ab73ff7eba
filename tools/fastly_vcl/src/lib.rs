//! The Fastly snippets of vcl/fastly, linted and run without Fastly.
//!
//! The real thing runs only at Fastly. This is our reading of what Fastly documents of its language:
//! a lint and an interpreter of the part that the snippets use, no more. It proves their logic, not
//! what Fastly makes of it: no cache, no clustering, no collapsing of requests stands behind it, its
//! random numbers are others, its clock stands still, and its regular expressions are nearly PCRE. A
//! name that it does not know is an error, never skipped. The tests are in the format of falco
//! (github.com/ysugimoto/falco), which runs `*.test.vcl` as well (`falco.rs`). `*.own-test.vcl` run
//! here alone: there `testing.inject_variable` sets what falco 1.13 has fixed values for
//! (`fastly_info.state`, `client.ip`, the visit to a shield, a restart).

mod builtins;
mod dates;
mod digests;
mod expressions;
mod headers;
mod lexer;
#[cfg(test)]
mod limits;
mod lint;
mod machine;
#[cfg(test)]
mod own;
mod parser;
mod queries;
mod regexes;
mod run;
mod signatures;
mod syntax;
mod testing;
mod typing;
mod values;
mod variables;

use std::path::Path;
use syntax::Program;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vcl/fastly");
/// The key of the tokens in these tests.
pub const SECRET: &str = "a secret of at least thirty-two bytes";

/// What is wrong with a whole program.
pub fn complaints(path: &Path) -> Vec<String> {
    match parser::program(path) {
        Ok(program) => lint::program(&program, true).iter().map(ToString::to_string).collect(),
        Err(error) => vec![error.to_string()],
    }
}

fn main_program() -> Program {
    parser::program(&Path::new(DIRECTORY).join("main.vcl"))
        .unwrap_or_else(|error| panic!("{error}"))
}

/// What the tokens of these tests say in `exp`, some time in 2100.
pub const EXPIRES_S: u64 = 4_102_444_800;
/// What the edge of these tests wants in `iss` and `aud`.
pub const ISSUER: &str = "https://issuer.example";
pub const AUDIENCE: &str = "app";

/// What a request carries to show who sent it; nothing that VCL would take for an escape.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    pub authorization: Option<String>,
    /// The value of `access_token` in the query.
    pub query: Option<String>,
    pub cookie: Option<String>,
}

impl Credentials {
    pub fn bearer(token: &str) -> Self {
        Self { authorization: Some(format!("Bearer {token}")), ..Self::default() }
    }
}

/// Statements of a test: an edge with a key and private channels, and a request for some.
pub fn request_for(names: &str, private: &str, credentials: &Credentials) -> String {
    let Credentials { authorization, query, cookie } = credentials;
    let query = query.as_ref().map(|token| format!("?access_token={token}")).unwrap_or_default();
    let set = |(header, value): (&str, &Option<String>)| {
        let value = value.as_ref()?;
        Some(format!("  set req.http.{header} = \"{value}\";\n"))
    };
    let headers = [("Authorization", authorization), ("Cookie", cookie)];
    let headers: String = headers.into_iter().filter_map(set).collect();
    format!(
        r#"  testing.table_set(headwater_secrets, "jwt_hs256_secret", "{SECRET}");
  testing.table_set(headwater_secrets, "edge_auth", "known to the edge");
  testing.table_set(headwater, "jwt_issuer", "{ISSUER}");
  testing.table_set(headwater, "jwt_audience", "{AUDIENCE}");
  testing.table_set(headwater, "private", "{private}");
  set req.url = "/channels/{names}{query}";
{headers}"#
    )
}

/// What failed of a file that has so many tests.
pub fn failures(path: &Path, count: usize) -> Vec<String> {
    let test = parser::program(path).unwrap_or_else(|error| panic!("{error}"));
    let outcome = testing::run(&main_program(), &test);
    assert_eq!(outcome.count, count, "{}", path.display());
    outcome.failures
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use syntax::annotation;

    fn files(ending: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(DIRECTORY).expect("vcl/fastly is there");
        let mut found: Vec<PathBuf> =
            entries.map(|entry| entry.expect("an entry").path()).collect();
        found.retain(|path| path.to_string_lossy().ends_with(ending));
        found.sort();
        assert!(!found.is_empty(), "there is no *{ending} in {DIRECTORY}");
        found
    }

    /// The files that are pasted into a service: all but main.vcl and the tests.
    fn snippets() -> Vec<PathBuf> {
        let mut found = files(".vcl");
        found.retain(|path| {
            let name = path.to_string_lossy();
            !name.ends_with("main.vcl") && !name.ends_with("test.vcl")
        });
        assert!(!found.is_empty(), "there is no snippet in {DIRECTORY}");
        found
    }

    #[test]
    fn every_snippet_stands_on_its_own() {
        let mut complaints = Vec::new();
        let mut statements = Vec::new();
        // Fastly puts the init snippets before everything else, so their names are known to all.
        let mut declared = Program::default();
        for path in snippets() {
            let parsed = parser::declares(&path).and_then(|declares| {
                if declares {
                    let program = parser::program(&path)?;
                    declared.tables.extend(program.tables);
                    declared.acls.extend(program.acls);
                    declared.subroutines.extend(program.subroutines);
                } else {
                    statements.push((path.clone(), parser::snippet(&path)?));
                }
                Ok(())
            });
            complaints.extend(parsed.err().map(|error| error.to_string()));
        }
        complaints.extend(lint::program(&declared, false).iter().map(ToString::to_string));
        for (path, (block, comments)) in &statements {
            let scopes = annotation(comments, "scope").unwrap_or_default();
            for scope in scopes.split(',').map(str::trim) {
                if lint::is_scope(scope) {
                    let found = lint::block(&declared, scope, false, block);
                    complaints.extend(found.iter().map(ToString::to_string));
                } else {
                    complaints.push(format!("{}:1: {scope:?} is no @scope", path.display()));
                }
            }
        }
        assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
    }

    #[test]
    fn every_test_that_falco_cannot_run_is_green() {
        let program = main_program();
        let mut count = 0;
        let mut failures = Vec::new();
        for path in files(".own-test.vcl") {
            match parser::program(&path) {
                Ok(test) => {
                    let outcome = testing::run(&program, &test);
                    let name = path.display();
                    if outcome.count == 0 {
                        failures.push(format!("{name}: there is no test in it"));
                    }
                    count += outcome.count;
                    failures.extend(outcome.failures);
                }
                Err(error) => failures.push(error.to_string()),
            }
        }
        println!("{count} tests of vcl/fastly ran");
        let failed = failures.len();
        assert!(failures.is_empty(), "{failed} of {count} failed\n{}", failures.join("\n"));
    }
}
