//! Reads RFC 3339 times, as Kubernetes writes them.

/// Milliseconds since the Unix epoch; `None` when the text is not a time, or one before the epoch.
pub(crate) fn unix_ms(text: &str) -> Option<u64> {
    let (date, rest) = text.split_once(['T', 't'])?;
    let mut date = date.split('-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (clock, offset_s) = offset(rest)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut clock = clock.split(':').map(str::parse::<i64>);
    let (hour, minute, second) = (
        clock.next()?.ok()?,
        clock.next()?.ok()?,
        clock.next()?.ok()?,
    );
    let in_bounds = (1970..10_000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    if !in_bounds || date.next().is_some() {
        return None;
    }
    let of_day_s = hour
        .checked_mul(3600)?
        .checked_add(minute.checked_mul(60)?)?
        .checked_add(second)?;
    let seconds = days(year, month, day)?
        .checked_mul(86_400)?
        .checked_add(of_day_s)?;
    let ms: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    u64::try_from(seconds.checked_sub(offset_s)?)
        .ok()?
        .checked_mul(1000)?
        .checked_add(ms)
}

/// Splits the zone off a clock time: seconds east of Greenwich.
fn offset(text: &str) -> Option<(&str, i64)> {
    if let Some(clock) = text.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let (clock, zone) = text.split_at_checked(text.rfind(['+', '-'])?)?;
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let seconds = hours.parse::<i64>().ok()?.checked_mul(3600)?;
    let seconds = seconds.checked_add(minutes.parse::<i64>().ok()?.checked_mul(60)?)?;
    Some((
        clock,
        if zone.starts_with('-') {
            seconds.checked_neg()?
        } else {
            seconds
        },
    ))
}

/// Days from the Unix epoch to a date, by counting years that begin in March so that the leap day comes last.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let shifted_year = if month <= 2 {
        year.checked_sub(1)?
    } else {
        year
    };
    let shifted_month = month.checked_add(9)? % 12;
    let of_years = shifted_year.checked_mul(365)?.checked_add(
        (shifted_year / 4)
            .checked_sub(shifted_year / 100)?
            .checked_add(shifted_year / 400)?,
    )?;
    let of_months = shifted_month.checked_mul(153)?.checked_add(2)? / 5;
    // 719469 is the number that this count gives to the first of January 1970, plus one for the day counted from one.
    of_years
        .checked_add(of_months)?
        .checked_add(day)?
        .checked_sub(719_469)
}
