//! The configuration file of `serve`: TOML in which each key is the name of a flag. The value of a
//! key is used only if neither the command line nor an environment variable sets this flag.

use super::variables::{is_named, is_typed, nearest};
use clap::builder::OsStr;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The file that is read when no other file is named, if it exists.
pub const DEFAULT_PATH: &str = "/etc/headwater/headwater.toml";
/// The flag that names the file, which cannot be in the file.
const OWN_FLAG: &str = "config";
const READABLE_BY_ALL: u32 = 0o004;

/// A configuration file that was read.
pub struct ConfigFile {
    path: PathBuf,
    settings: BTreeMap<String, Setting>,
    is_readable_by_all: bool,
}

struct Setting {
    values: Vec<String>,
    /// The line of the key, counted from 1.
    line: usize,
}

/// The flags of `serve` that a file can set.
pub fn settings_of(command: &Command) -> impl Iterator<Item = &Arg> {
    let is_setting = |arg: &&Arg| arg.get_env().is_some() && arg.get_long() != Some(OWN_FLAG);
    command.get_arguments().filter(is_setting)
}

impl ConfigFile {
    /// Reads the file that `--config` names, or the default file if it exists. The name is empty if
    /// no file shall be read.
    ///
    /// # Errors
    /// Fails when the file cannot be read, is no TOML, or has a key or a type of value that no flag
    /// of `command` has. The text names the file and the line.
    pub fn find(named: Option<&str>, command: &Command) -> Result<Option<Self>, String> {
        let path = match named {
            Some("") => return Ok(None),
            Some(path) => Path::new(path),
            None if Path::new(DEFAULT_PATH).exists() => Path::new(DEFAULT_PATH),
            None => return Ok(None),
        };
        Self::read(path, command).map(Some)
    }

    fn read(path: &Path, command: &Command) -> Result<Self, String> {
        let cannot = |error| format!("cannot read {}: {error} (--config)", path.display());
        let text = std::fs::read_to_string(path).map_err(cannot)?;
        let mode = std::fs::metadata(path).map_err(cannot)?.permissions().mode();
        let settings = parse(&text, command);
        let settings =
            settings.map_err(|(line, why)| format!("{}, line {line}: {why}", path.display()))?;
        let is_readable_by_all = mode & READABLE_BY_ALL != 0;
        Ok(Self { path: path.to_owned(), settings, is_readable_by_all })
    }

    /// Reads the text of a file.
    #[cfg(feature = "fuzzing")]
    pub fn of_text(text: &str, command: &Command) -> Result<Self, (usize, String)> {
        let settings = parse(text, command)?;
        Ok(Self { path: PathBuf::new(), settings, is_readable_by_all: false })
    }

    /// Returns the values of each setting.
    #[cfg(feature = "fuzzing")]
    pub fn into_values(self) -> Vec<(String, Vec<String>)> {
        self.settings.into_iter().map(|(name, setting)| (name, setting.values)).collect()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the values of the file the defaults of the flags.
    pub fn apply(&self, mut command: Command) -> Command {
        let flag_of = |arg: &Arg| Some((arg.get_id().clone(), arg.get_long()?.to_owned()));
        let flags: Vec<_> = settings_of(&command).filter_map(flag_of).collect();
        for (id, flag) in flags {
            if let Some(setting) = self.settings.get(&flag) {
                let values = setting.values.iter().map(|value| OsStr::from(value.clone()));
                let values: Vec<OsStr> = values.collect();
                command = command.mut_arg(id, |arg| arg.default_values(values));
            }
        }
        command
    }

    /// Says where in the file a flag is set, if it is.
    pub fn place_of(&self, flag: &str) -> Option<String> {
        let line = self.settings.get(flag)?.line;
        Some(format!("{}, line {line}", self.path.display()))
    }

    /// A note about the flags in `text` that were set by the file. Flags among the words `typed` on
    /// the command line, and flags that a variable has set, are left out.
    pub fn behind(
        &self,
        text: &str,
        typed: &[OsString],
        is_set_by_variable: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let notes = self.settings.keys().filter_map(|name| {
            let flag = format!("--{name}");
            let is_ours =
                is_named(text, &flag) && !is_typed(typed, &flag) && !is_set_by_variable(&flag);
            is_ours.then(|| self.place_of(name).map(|place| format!("{flag} is set in {place}")))?
        });
        let notes: Vec<_> = notes.collect();
        (!notes.is_empty()).then(|| notes.join(", "))
    }

    /// A warning if the file has a secret and every user of the machine can read it.
    pub fn exposure(&self, command: &Command) -> Option<String> {
        let mut secrets = settings_of(command).filter(|arg| arg.is_hide_env_values_set());
        let exposed = secrets.find_map(|arg| {
            let flag = arg.get_long()?;
            let values = &self.settings.get(flag)?.values;
            values.iter().any(|value| shown(flag, value) != *value).then_some(flag)
        })?;
        self.is_readable_by_all.then(|| {
            let path = self.path.display();
            format!(
                "every user of this machine can read the secret {exposed} in {path}: run chmod o-r \
                 {path}, or name a file with {exposed} = \"@FILE\""
            )
        })
    }
}

/// Returns the text of a secret setting that may be shown: the name of its file, or a URL without
/// its password.
pub fn shown(flag: &str, value: &str) -> String {
    const HIDDEN: &str = "(hidden)";
    if value.starts_with('@') {
        return value.to_owned();
    }
    if flag != "store" {
        return HIDDEN.to_owned();
    }
    let parts = value.split_once("://").and_then(|(scheme, rest)| {
        let (user, place) = rest.rsplit_once('@')?;
        let (user, _password) = user.split_once(':')?;
        Some(format!("{scheme}://{user}:{HIDDEN}@{place}"))
    });
    parts.unwrap_or_else(|| value.to_owned())
}

/// Says where the value of a flag comes from.
pub fn source_of(arg: &Arg, matches: &ArgMatches, file: Option<&ConfigFile>) -> Option<String> {
    use clap::parser::ValueSource;
    let flag = arg.get_long()?;
    match matches.value_source(arg.get_id().as_str())? {
        ValueSource::CommandLine => Some(format!("--{flag}")),
        ValueSource::EnvVariable => Some(arg.get_env()?.to_string_lossy().into_owned()),
        _ => file?.place_of(flag),
    }
}

fn parse(text: &str, command: &Command) -> Result<BTreeMap<String, Setting>, (usize, String)> {
    let line_at = |offset: usize| text[..offset].matches('\n').count() + 1;
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        (line_at(at), error.message().to_owned())
    })?;
    let mut settings = BTreeMap::new();
    for (key, value) in table.get_ref() {
        let (name, line) = (key.get_ref().as_ref(), line_at(key.span().start));
        let mut args = settings_of(command);
        let Some(arg) = args.find(|arg| arg.get_long() == Some(name)) else {
            let known = settings_of(command).filter_map(Arg::get_long);
            let hint = match nearest(name, known) {
                Some(nearest) => format!("did you mean {nearest}?"),
                None => "`headwater config init -` prints all of them".to_owned(),
            };
            return Err((line, format!("there is no setting {name}; {hint}")));
        };
        let values = values(arg, value.get_ref()).map_err(|why| (line, format!("{name} {why}")))?;
        settings.insert(name.to_owned(), Setting { values, line });
    }
    Ok(settings)
}

fn values(arg: &Arg, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let takes_many = matches!(arg.get_action(), ArgAction::Append);
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
    match value {
        DeValue::Boolean(value) if is_switch => Ok(vec![value.to_string()]),
        _ if is_switch => Err("takes true or false".to_owned()),
        DeValue::Array(items) if takes_many => {
            items.iter().map(|item| single(item.get_ref())).collect()
        }
        DeValue::Array(_) => Err("takes one value, not a list".to_owned()),
        DeValue::Table(rows) if takes_many => rows.iter().map(row).collect(),
        single_value => single(single_value).map(|value| vec![value]),
    }
}

/// Reads a row of a table with the same text as in a list: its name, then each part as `name=value`.
fn row((name, parts): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)) -> Result<String, String> {
    let name = name.get_ref();
    let DeValue::Table(parts) = parts.get_ref() else {
        return Err(format!("has no settings for {name}: write [setting.\"{name}\"]"));
    };
    let parts = parts.iter().map(|(part, value)| {
        single(value.get_ref()).map(|value| format!("{}={value}", part.get_ref()))
    });
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    Ok(format!("{name} {}", parts.join(" ")))
}

fn single(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => {
            Ok(number.as_str().trim_start_matches('+').replace('_', ""))
        }
        DeValue::Table(_) => Err("has no parts: write it as name = \"value\"".to_owned()),
        _ => Err("takes a text in quotes or a whole number".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Arguments;
    use clap::CommandFactory;

    fn serve() -> Command {
        let command = Arguments::command();
        command.find_subcommand("serve").unwrap().clone()
    }

    fn parsed(text: &str) -> Result<Vec<(String, Vec<String>)>, String> {
        let settings = parse(text, &serve()).map_err(|(line, why)| format!("{line}: {why}"))?;
        Ok(settings.into_iter().map(|(name, setting)| (name, setting.values)).collect())
    }

    #[test]
    fn a_file_is_read_as_the_values_of_flags() {
        let text = "# a comment\nsegment = \"10s\"\nlanes = 1_0\ndemo = true\n\
                    cors-origin = [\"https://a.example\", \"https://b.example\"]\nprivate = \"a.*\"";
        let values = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        let expected = [
            ("cors-origin", &["https://a.example", "https://b.example"][..]),
            ("demo", &["true"]),
            ("lanes", &["10"]),
            ("private", &["a.*"]),
            ("segment", &["10s"]),
        ];
        let expected = expected.map(|(name, all)| (name.to_owned(), values(all)));
        assert_eq!(parsed(text), Ok(expected.to_vec()));
    }

    #[test]
    fn the_settings_of_channels_may_be_a_table() {
        let text = "[channel-settings.\"prices.*\"]\nretain-age = \"1h\"\nmax-keys = 1_0\n\
                    [channel-settings.board]\nmax-keys = 2";
        let values = ["board max-keys=2", "prices.* max-keys=10 retain-age=1h"];
        let values = values.map(str::to_owned).to_vec();
        assert_eq!(parsed(text), Ok(vec![("channel-settings".to_owned(), values)]));
    }

    #[test]
    fn an_error_names_the_line_and_the_nearest_setting() {
        let check = |text: &str, expected: &str| {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("\nsegmnt = \"1s\"", "2: there is no setting segmnt; did you mean segment?");
        check("config = \"a\"", "1: there is no setting config");
        check("lanes = 1\nlanes = 2", "2: duplicate key");
        check("segment = [\"1s\"]", "1: segment takes one value, not a list");
        check("demo = \"yes\"", "1: demo takes true or false");
        check("segment = 1.5", "1: segment takes a text in quotes or a whole number");
        check("[segment]\nlength = 1", "1: segment has no parts");
        check("[channel-settings]\na = 1", "1: channel-settings has no settings for a");
        check("segment = 10s", "1: ");
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(shown("token-secret", "abc"), "(hidden)");
        assert_eq!(shown("token-secret", "@/run/secret"), "@/run/secret");
        assert_eq!(shown("store", "disk:/var/lib/headwater"), "disk:/var/lib/headwater");
        let url = "rediss://user:p@ss@redis.example:6379/1";
        assert_eq!(shown("store", url), "rediss://user:(hidden)@redis.example:6379/1");
    }
}
