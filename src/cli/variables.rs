//! The environment variables that set flags. A misspelt variable is refused, and if a variable has
//! set a flag, an error about that flag names the variable.

use clap::Command;
use std::collections::BTreeMap;
use std::ffi::OsString;

/// The prefix of the names of all variables of Headwater.
const PREFIX: &str = "HEADWATER_";
/// Least similarity (0 to 1) at which one name counts as a misspelling of another.
const LIKENESS_MIN: f64 = 0.7;

/// The flag of each variable, for the flags of all commands.
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    /// Collects the variables of `command` and of all its subcommands.
    pub fn of(command: &Command) -> Self {
        let mut known = BTreeMap::new();
        let mut open = vec![command];
        while let Some(command) = open.pop() {
            open.extend(command.get_subcommands());
            for argument in command.get_arguments() {
                let variable = argument.get_env().and_then(|name| name.to_str());
                if let (Some(flag), Some(variable)) = (argument.get_long(), variable) {
                    known.insert(variable.to_owned(), format!("--{flag}"));
                }
            }
        }
        Self(known)
    }

    /// The error for the first variable in `set` that has our prefix but belongs to no flag.
    pub fn misspelt(&self, set: impl Iterator<Item = OsString>) -> Option<String> {
        let ours = set.filter_map(|name| name.into_string().ok());
        let mut unknown =
            ours.filter(|name| name.starts_with(PREFIX) && !self.0.contains_key(name));
        let name = unknown.next()?;
        // The common prefix would make all names similar, so only the rest is compared.
        let rest = |name: &str| name.trim_start_matches(PREFIX).to_owned();
        let likeness =
            |known: &&String| strsim::normalized_damerau_levenshtein(&rest(known), &rest(&name));
        let nearest = self.0.keys().map(|known| (likeness(&known), known));
        let nearest = nearest.max_by(|one, other| one.0.total_cmp(&other.0));
        let hint = match nearest.filter(|(likeness, _)| *likeness >= LIKENESS_MIN) {
            Some((_, nearest)) => format!("did you mean {nearest}?"),
            None => "see `headwater serve --help` for all of them, or unset it".to_owned(),
        };
        Some(format!("there is no variable {name}; {hint}"))
    }

    /// A note about the flags in `text` that were set by variables: it names these variables. Flags
    /// among the words `typed` on the command line are left out.
    pub fn behind(
        &self,
        text: &str,
        typed: &[OsString],
        is_set: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let is_typed = |flag: &str| {
            let mut words = typed.iter().filter_map(|word| word.to_str());
            words.any(|word| word == flag || word.starts_with(&format!("{flag}=")))
        };
        let is_named = |flag: &str| {
            let mut ends = text.match_indices(flag).map(|(at, _)| &text[at + flag.len()..]);
            ends.any(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-'))
        };
        let from_variable = |(variable, flag): &(&String, &String)| {
            is_named(flag) && !is_typed(flag) && is_set(variable)
        };
        let notes = self.0.iter().filter(from_variable);
        let notes: Vec<_> =
            notes.map(|(variable, flag)| format!("{flag} is set by {variable}")).collect();
        (!notes.is_empty()).then(|| notes.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Arguments;
    use clap::CommandFactory;

    fn variables() -> Variables {
        Variables::of(&Arguments::command())
    }

    #[test]
    fn a_misspelt_variable_is_refused_and_the_nearest_named() {
        let misspelt = |name: &str| variables().misspelt([OsString::from(name)].into_iter());
        assert_eq!(misspelt("HEADWATER_SEGMENT"), None);
        assert_eq!(misspelt("HEADWATER_URL"), None);
        assert_eq!(misspelt("PATH"), None);
        let said = misspelt("HEADWATER_SEGMNT").unwrap();
        assert!(said.contains("did you mean HEADWATER_SEGMENT?"), "{said}");
        let said = misspelt("HEADWATER_XYZZY").unwrap();
        assert!(said.contains("HEADWATER_XYZZY; see"), "{said}");
    }

    #[test]
    fn an_error_names_the_variable_of_a_flag_that_was_not_typed() {
        let behind = |text: &str, typed: &[&str]| {
            let typed: Vec<OsString> = typed.iter().map(OsString::from).collect();
            variables().behind(text, &typed, |name| name == "HEADWATER_SEGMENT")
        };
        let text = "--segment takes 1s to 10m";
        let said = "--segment is set by HEADWATER_SEGMENT".to_owned();
        assert_eq!(behind(text, &["headwater", "serve"]), Some(said));
        assert_eq!(behind(text, &["headwater", "serve", "--segment=1h"]), None);
        assert_eq!(behind(text, &["headwater", "serve", "--segment", "1h"]), None);
        assert_eq!(behind("--segment-bytes takes 1 or more", &[]), None);
        assert_eq!(behind("--lanes takes 1 to 64", &[]), None);
    }
}
