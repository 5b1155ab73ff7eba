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
        let rest = self.0.keys().map(|known| known.trim_start_matches(PREFIX));
        let hint = match nearest(name.trim_start_matches(PREFIX), rest) {
            Some(nearest) => format!("did you mean {PREFIX}{nearest}?"),
            None => "see `headwater serve --help` for all of them, or unset it".to_owned(),
        };
        Some(format!("there is no variable {name}; {hint}"))
    }

    /// The variable of a flag such as `--segment`.
    pub fn of_flag(&self, flag: &str) -> Option<&str> {
        self.0.iter().find(|(_, known)| *known == flag).map(|(variable, _)| variable.as_str())
    }

    /// A note about the flags in `text` that were set by variables: it names these variables. Flags
    /// among the words `typed` on the command line are left out.
    pub fn behind(
        &self,
        text: &str,
        typed: &[OsString],
        is_set: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let from_variable = |(variable, flag): &(&String, &String)| {
            is_named(text, flag) && !is_typed(typed, flag) && is_set(variable)
        };
        let notes = self.0.iter().filter(from_variable);
        let notes: Vec<_> =
            notes.map(|(variable, flag)| format!("{flag} is set by {variable}")).collect();
        (!notes.is_empty()).then(|| notes.join(", "))
    }
}

/// The name among `known` that is most similar to a misspelt one, if any is similar enough.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |known: &str| strsim::normalized_damerau_levenshtein(known, name);
    let nearest = known.map(|known| (likeness(known), known));
    let (likeness, nearest) = nearest.max_by(|one, other| one.0.total_cmp(&other.0))?;
    (likeness >= LIKENESS_MIN).then_some(nearest)
}

/// Whether a text names a flag, and not only one whose name begins in the same way.
pub fn is_named(text: &str, flag: &str) -> bool {
    let mut ends = text.match_indices(flag).map(|(at, _)| &text[at + flag.len()..]);
    ends.any(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-'))
}

/// Whether a flag is among the words of a command line.
pub fn is_typed(words: &[OsString], flag: &str) -> bool {
    let mut words = words.iter().filter_map(|word| word.to_str());
    words.any(|word| word == flag || word.starts_with(&format!("{flag}=")))
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
