//! `bridge link`

use anyhow::Context as _;
use jiff::SignedDuration;
use shared::clock::Clock;
use shared::messenger::link;

use crate::output;
use crate::secrets::SecretArgs;

/// Make a link token, which ties a Messenger or Instagram contact to a user
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The token proves who the person is: give it only to that user.\n\n\
    Examples:\n  \
    bridge link --user-id 42\n  \
    bridge link --user-id 42 --page my.page --ttl 24h"
)]
pub(crate) struct Args {
    /// The user's Braze external id
    #[arg(long, value_name = "ID")]
    user_id: String,

    /// The page's name or id, for an m.me link
    #[arg(long, value_name = "PAGE")]
    page: Option<String>,

    /// How long the token is good for, such as 15m, 24h or 7d
    #[arg(long, default_value = "15m", value_parser = duration)]
    ttl: SignedDuration,

    #[command(flatten)]
    secrets: SecretArgs,
}

fn duration(text: &str) -> Result<SignedDuration, String> {
    // A day is 24 hours here; jiff leaves days to calendars.
    let days = text
        .strip_suffix('d')
        .and_then(|days| days.trim().parse::<i64>().ok());
    match days.and_then(|days| days.checked_mul(24)) {
        Some(hours) => SignedDuration::try_from_hours(hours).ok_or_else(|| "too long".to_owned()),
        None => text
            .parse()
            .map_err(|_| "expects a duration such as 15m, 24h or 7d".to_owned()),
    }
}

pub(crate) async fn run(args: Args, clock: &Clock) -> anyhow::Result<()> {
    let key = args.secrets.open().await?.link_signing_key().await?;
    let now = clock.now();
    let token = link::mint(&key, &args.user_id, args.ttl, now).context("no link token was made")?;
    output::line(&token);
    if let Some(page) = &args.page {
        let mut url = url::Url::parse("https://m.me/")?;
        url.set_path(page);
        url.query_pairs_mut().append_pair("ref", &token);
        output::line(url);
    }
    if let Ok(until) = now.checked_add(args.ttl) {
        output::note(format_args!(
            "good until {}",
            until.strftime("%Y-%m-%d %H:%M:%S UTC")
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("15m"), Ok(SignedDuration::from_mins(15)));
        assert_eq!(duration("7d"), Ok(SignedDuration::from_hours(168)));
        assert_eq!(duration("1h 30m"), Ok(SignedDuration::from_mins(90)));
        assert!(duration("15").is_err() && duration("soon").is_err());
        assert!(duration("99999999999999999d").is_err());
    }
}
