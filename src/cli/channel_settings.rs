//! The settings of channels in flags: those of a pattern (`--channel-settings`), and the flags of
//! `headwater channels set`.

use super::units::{bytes, duration};
use super::variables::nearest;
use crate::core::pattern::Pattern;
use crate::store::ChannelSettings;
use clap::Args;
use serde_json::{Value, json};
use std::str::FromStr;

/// The word for no setting.
const DEFAULT: &str = "default";
/// The names of the settings. Each is the name of a flag of `serve`.
const NAMES: [&str; 6] =
    ["retain-age", "retain-events", "retain-bytes", "channel-idle", "max-keys", "max-state-bytes"];

/// The settings of the channels that a pattern matches, as in `prices.* retain-age=1h max-keys=10`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternSettings {
    pub pattern: Pattern,
    pub settings: ChannelSettings,
}

impl FromStr for PatternSettings {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let pattern = words.next().ok_or("write it as \"prices.* retain-age=1h\"")?;
        let pattern = pattern.parse().map_err(|error| format!("the pattern {pattern} {error}"))?;
        let mut settings = ChannelSettings::default();
        for word in words {
            let (name, value) =
                word.split_once('=').ok_or_else(|| format!("write {word} as name=value"))?;
            *setting(&mut settings, name)? =
                Some(parse(name, value).map_err(|why| format!("{name}: {why}"))?);
        }
        if settings.is_empty() {
            return Err(format!("{text} has no setting; there are {}", NAMES.join(", ")));
        }
        Ok(Self { pattern, settings })
    }
}

/// Returns the settings of `--channel-settings`.
///
/// # Errors
/// Fails when a pattern is there twice.
pub fn of_patterns(all: &[PatternSettings]) -> Result<Vec<(Pattern, ChannelSettings)>, String> {
    for (index, PatternSettings { pattern, .. }) in all.iter().enumerate() {
        if all[..index].iter().any(|other| other.pattern == *pattern) {
            return Err(format!("--channel-settings: {pattern} is there twice"));
        }
    }
    Ok(all.iter().map(|one| (one.pattern.clone(), one.settings)).collect())
}

/// The flags that change the settings of one channel.
#[derive(Args, Debug)]
pub struct SettingArguments {
    /// Age at which events are dropped, such as 1h; default = that of the origin (time)
    #[arg(long)]
    retain_age: Option<String>,
    /// Most events kept (count)
    #[arg(long)]
    retain_events: Option<String>,
    /// Most bytes of events kept, such as 1MiB (size)
    #[arg(long)]
    retain_bytes: Option<String>,
    /// Time after which the channel is forgotten if it has no events, state and publishes (time)
    #[arg(long)]
    channel_idle: Option<String>,
    /// Most keys in the state (count)
    #[arg(long)]
    max_keys: Option<String>,
    /// Most bytes in the state (size)
    #[arg(long)]
    max_state_bytes: Option<String>,
}

impl SettingArguments {
    /// Returns the change as a merge patch (RFC 7396), in which `null` removes a setting.
    ///
    /// # Errors
    /// Fails when there is no flag, or when one has a wrong value. The text names the flag.
    pub fn patch(&self) -> Result<Value, String> {
        let values = [
            &self.retain_age,
            &self.retain_events,
            &self.retain_bytes,
            &self.channel_idle,
            &self.max_keys,
            &self.max_state_bytes,
        ];
        let given = NAMES.iter().zip(values);
        let given: Vec<_> =
            given.filter_map(|(name, value)| Some((name, value.as_ref()?))).collect();
        if given.is_empty() {
            let flags: Vec<_> = NAMES.iter().map(|name| format!("--{name}")).collect();
            return Err(format!("nothing to set; give one of {}", flags.join(", ")));
        }
        let (mut set, mut removed) = (ChannelSettings::default(), ChannelSettings::default());
        for (name, value) in given {
            match value.as_str() {
                DEFAULT => *setting(&mut removed, name)? = Some(0),
                value => {
                    let value = parse(name, value).map_err(|why| format!("--{name}: {why}"))?;
                    *setting(&mut set, name)? = Some(value);
                }
            }
        }
        let mut patch = json!(set);
        if let Value::Object(removed) = json!(removed) {
            removed.into_iter().for_each(|(name, _)| patch[name] = Value::Null);
        }
        Ok(patch)
    }
}

/// Returns each setting as people write it.
pub fn described(settings: &ChannelSettings) -> Vec<(&'static str, String)> {
    let mut settings = *settings;
    let one = |name: &&'static str| {
        let value = (*setting(&mut settings, name).ok()?)?;
        let value = match *name {
            "retain-age" | "channel-idle" => {
                humantime::format_duration(std::time::Duration::from_millis(value)).to_string()
            }
            "retain-bytes" | "max-state-bytes" => bytesize::ByteSize(value).to_string(),
            _ => value.to_string(),
        };
        Some((*name, value))
    };
    NAMES.iter().filter_map(one).collect()
}

fn setting<'s>(
    settings: &'s mut ChannelSettings,
    name: &str,
) -> Result<&'s mut Option<u64>, String> {
    Ok(match name {
        "retain-age" => &mut settings.retain_age_ms,
        "retain-events" => &mut settings.retain_events,
        "retain-bytes" => &mut settings.retain_bytes,
        "channel-idle" => &mut settings.channel_idle_ms,
        "max-keys" => &mut settings.max_keys,
        "max-state-bytes" => &mut settings.max_state_bytes,
        _ => {
            let hint = match nearest(name, NAMES.into_iter()) {
                Some(nearest) => format!("did you mean {nearest}?"),
                None => format!("there are {}", NAMES.join(", ")),
            };
            return Err(format!("there is no setting {name}; {hint}"));
        }
    })
}

fn parse(name: &str, value: &str) -> Result<u64, String> {
    let number = match name {
        "retain-age" | "channel-idle" => duration(value)?.as_millis() as u64,
        "retain-bytes" | "max-state-bytes" => bytes(value)?,
        _ => value.parse().map_err(|_| format!("{value} is no whole number"))?,
    };
    match number {
        0 => Err("takes more than 0".to_owned()),
        number => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<PatternSettings, String> {
        text.parse()
    }

    #[test]
    fn settings_are_read_as_they_are_written() {
        let read = parsed("prices.*  retain-age=1h max-keys=10 retain-bytes=1MiB").unwrap();
        let ChannelSettings { retain_age_ms, max_keys, retain_bytes, .. } = read.settings;
        assert_eq!((retain_age_ms, max_keys), (Some(3_600_000), Some(10)));
        assert_eq!(retain_bytes, Some(1024 * 1024));
        let shown = described(&read.settings);
        assert_eq!(shown[0], ("retain-age", "1h".to_owned()));
        assert_eq!(shown[1], ("retain-bytes", "1.0 MiB".to_owned()));
    }

    #[test]
    fn an_error_says_what_is_wrong() {
        let error = |text: &str| parsed(text).unwrap_err();
        assert!(error("").contains("write it as"));
        assert!(error("a").contains("has no setting"));
        assert!(error("a* max-keys=1").contains("the pattern a*"));
        assert!(error("a max-key=1").contains("did you mean max-keys?"));
        assert!(error("a max-keys").contains("name=value"));
        assert!(error("a max-keys=0").contains("more than 0"));
        assert!(error("a retain-age=1").contains("retain-age: "));
    }
}
