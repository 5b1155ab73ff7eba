//! Dates as VCL writes and reads them. All in UTC, in nanoseconds since the Unix epoch.

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const SECOND: i64 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;

/// Year, month from 1, day from 1, from days since the epoch.
fn civil(days: i64) -> (i64, i64, i64) {
    let mut year = 1970;
    let mut left = days;
    while left < 0 {
        year -= 1;
        left += year_days(year);
    }
    while left >= year_days(year) {
        left -= year_days(year);
        year += 1;
    }
    let mut month = 1;
    while left >= month_days(year, month) {
        left -= month_days(year, month);
        month += 1;
    }
    (year, month, left + 1)
}

fn year_days(year: i64) -> i64 {
    let is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if is_leap { 366 } else { 365 }
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 => year_days(year) - 337,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let years: i64 = (1970..year).map(year_days).sum();
    let months: i64 = (1..month).map(|month| month_days(year, month)).sum();
    years + months + day - 1
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
pub fn http_date(time: i64) -> String {
    formatted("%a, %d %b %Y %H:%M:%S GMT", time).expect("all its letters are known")
}

/// strftime(3); an unknown letter is given back, so that nothing is printed by guesswork.
pub fn formatted(pattern: &str, time: i64) -> Result<String, char> {
    let seconds = time.div_euclid(SECOND);
    let days = seconds.div_euclid(DAY_SECONDS);
    let (year, month, day) = civil(days);
    let second = seconds.rem_euclid(DAY_SECONDS);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let mut text = String::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        text += &match letters.next().unwrap_or('%') {
            'Y' => year.to_string(),
            'm' => format!("{month:02}"),
            'd' => format!("{day:02}"),
            'H' => format!("{hour:02}"),
            'M' => format!("{minute:02}"),
            'S' => format!("{:02}", second % 60),
            'F' => format!("{year}-{month:02}-{day:02}"),
            'T' => format!("{hour:02}:{minute:02}:{:02}", second % 60),
            'a' => DAYS[days.rem_euclid(7) as usize].to_owned(),
            'b' => MONTHS[month as usize - 1].to_owned(),
            's' => seconds.to_string(),
            'Z' => "UTC".to_owned(),
            'z' => "+0000".to_owned(),
            '%' => "%".to_owned(),
            other => return Err(other),
        };
    }
    Ok(text)
}

/// An HTTP date, `2026-01-31 12:00:00` (with `T` and `Z` too), or seconds since the epoch.
pub fn parsed(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Some((seconds * SECOND as f64) as i64);
    }
    let parts: Vec<&str> =
        text.split([' ', ':', '-', 'T', 'Z', ',']).filter(|part| !part.is_empty()).collect();
    let number = |index: usize| parts.get(index)?.parse::<i64>().ok();
    let (year, month, day, clock) = if number(0).is_some() {
        (number(0)?, number(1)?, number(2)?, 3)
    } else {
        let name = text.split(' ').nth(2)?;
        let month = MONTHS.iter().position(|month| *month == name)? as i64 + 1;
        let words: Vec<&str> = text.split(' ').collect();
        let clock = words.get(4)?.split(':').filter_map(|part| part.parse::<i64>().ok());
        let clock: Vec<i64> = clock.collect();
        let [hour, minute, second] = clock[..] else { return None };
        let days = days_before(words.get(3)?.parse().ok()?, month, words.get(1)?.parse().ok()?);
        return Some((days * DAY_SECONDS + hour * 3600 + minute * 60 + second) * SECOND);
    };
    let seconds = number(clock)? * 3600 + number(clock + 1)? * 60 + number(clock + 2)?;
    Some((days_before(year, month, day) * DAY_SECONDS + seconds) * SECOND)
}
