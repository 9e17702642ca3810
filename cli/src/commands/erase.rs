//! `bridge erase`

use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use futures_util::stream::{self, StreamExt};
use jiff::SignedDuration;
use outbox_dispatch::erase::find::{Finder, Records};
use secrecy::ExposeSecret as _;
use shared::clock::Clock;
use shared::erase::{Counts, EraseInBraze, Erasures, Order, Source, Target};
use shared::fbe::table::Installs;
use shared::messenger::table::Contacts;
use shared::outbox::Outbox;
use shared::secrets::Secret;
use shared::telemetry;
use shared::whatsapp::table::Conversations;

use crate::output;
use crate::target::{Target as Stack, TargetArgs};

/// Orders that are written side by side.
const CONCURRENCY: usize = 32;
/// After so many ids of a list it is said how far it is.
const PROGRESS: usize = 1_000;
/// Ids of Meta's are digits, at most so many.
const LONGEST_ID: usize = 32;
/// What could not be read when it came is kept for so long.
const QUARANTINE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Erase a person or a business, here and in Braze
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    bridge erase --user user-42 --dry-run\n  \
    bridge erase --psid 5275811702471834 --page 1134597043258171 --stack meta-braze-bridge-dev\n  \
    bridge erase --meta-list deleted_users.csv --stack meta-braze-bridge-prod\n\n\
    It is carried out by the stack, within a minute or two, and once more ten minutes later.")]
pub(crate) struct Args {
    #[command(flatten)]
    whom: Whom,

    /// Pages or Instagram accounts on which the PSID counts [default: those of the meta secret]
    #[arg(long = "page", value_name = "ID", conflicts_with_all = ["user", "phone", "braze_id", "business", "meta_list"])]
    pages: Vec<String>,

    /// What becomes of the person in Braze [default: the stack's `ERASE_IN_BRAZE`]
    #[arg(long, value_name = "HOW", value_parser = ["attributes", "delete", "keep"])]
    braze: Option<String>,

    /// Say how much there is of them, and change nothing
    #[arg(long, conflicts_with = "meta_list")]
    dry_run: bool,

    /// Look through what could not be read when it came, too, and delete what holds the id
    #[arg(long, conflicts_with_all = ["meta_list", "dry_run"])]
    quarantine: bool,

    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Whom {
    /// A user, by Braze's external id: all contacts that are linked to them, and their conversation
    #[arg(long, value_name = "ID")]
    user: Option<String>,

    /// A person on Messenger or Instagram, by PSID, IGSID or app-scoped id
    #[arg(long, value_name = "ID")]
    psid: Option<String>,

    /// A person on WhatsApp whom Braze knows by the number alone, spelled as Braze does
    #[arg(long, value_name = "NUMBER")]
    phone: Option<String>,

    /// A person on WhatsApp whom Braze knows by its own id alone
    #[arg(long, value_name = "ID")]
    braze_id: Option<String>,

    /// A business that installed the app, by its external business id
    #[arg(long, value_name = "ID")]
    business: Option<String>,

    /// A list of ids that Meta has mailed: one a line, or the first column of a CSV file
    #[arg(long, value_name = "FILE")]
    meta_list: Option<PathBuf>,
}

impl Args {
    fn targets(&self) -> Option<(Target, &str)> {
        let whom = &self.whom;
        if let Some(user) = &whom.user {
            return Some((Target::User(user.as_str().into()), user));
        }
        if let Some(id) = &whom.psid {
            let target = Target::Scoped {
                id: id.as_str().into(),
                accounts: self.pages.clone(),
            };
            return Some((target, id));
        }
        if let Some(business) = &whom.business {
            return Some((Target::Business(business.clone()), business));
        }
        let conversation = |kind: &str, id: &str| Target::Conversation(format!("{kind}:{id}").into());
        if let Some(phone) = &whom.phone {
            return Some((conversation("phone", phone), phone));
        }
        let braze_id = whom.braze_id.as_ref()?;
        Some((conversation("braze", braze_id), braze_id))
    }

    fn order(&self, target: Target, clock: &Clock) -> Order {
        let braze = self
            .braze
            .as_deref()
            .and_then(|braze| braze.parse::<EraseInBraze>().ok());
        Order {
            braze,
            ..Order::new(target, Source::Operator, clock.now())
        }
    }
}

/// Where orders go.
struct Desk {
    erasures: Erasures,
    outbox: Outbox,
    /// Makes confirmation codes that say nothing of whom they are about, the same for the same person.
    key: String,
    finder: Finder,
}

impl Desk {
    async fn open(stack: &Stack, clock: &Clock) -> anyhow::Result<Self> {
        let Some(aws) = &stack.aws else {
            bail!("no local stack is running; is `bridge local`? (for a deployed one: --stack)");
        };
        let dynamodb = aws_sdk_dynamodb::Client::new(aws);
        let outbox = Outbox::new(dynamodb, stack.table("OutboxTable")?, clock.clone());
        let records = Records {
            contacts: Contacts::new(stack.table("ContactsTable")?, outbox.clone()),
            conversations: Conversations::new(stack.table("ConversationsTable")?, outbox.clone()),
            installs: Installs::new(stack.table("InstallsTable")?, outbox.clone()),
            outbox: outbox.clone(),
        };
        let secrets = aws_sdk_secretsmanager::Client::new(aws);
        let meta = Secret::new(secrets, &format!("{}/meta", stack.name), clock.clone());
        let key = stack.secrets.link_signing_key().await?;
        Ok(Self {
            erasures: Erasures::new(outbox.clone()),
            outbox,
            key: key.expose_secret().to_owned(),
            // Only app-scoped ids need it, and the stack itself asks again.
            finder: Finder::new(records, meta, stack.graph().ok()),
        })
    }

    fn code(&self, target: &Target) -> anyhow::Result<String> {
        let named = serde_json::to_string(target).context("the target cannot be named")?;
        Ok(telemetry::keyed_hash_by(&self.key, &format!("erasure {named}")))
    }
}

pub(crate) async fn run(args: Args, clock: &Clock) -> anyhow::Result<()> {
    let stack = args.target.open().await?;
    let desk = Desk::open(&stack, clock).await?;
    if let Some(file) = &args.whom.meta_list {
        let file = std::fs::File::open(file).with_context(|| format!("{} cannot be read", file.display()))?;
        return list(&args, &desk, BufReader::new(file), clock).await;
    }
    let Some((target, id)) = args.targets() else {
        return Err(output::usage("say whom to erase"));
    };
    let found = desk.finder.find(&target).await?;
    let counts = desk.finder.count(&found).await?;
    output::line(if found.is_empty() {
        "nothing is stored of them".to_owned()
    } else {
        said(counts)
    });
    if args.dry_run {
        return Ok(());
    }
    if args.quarantine {
        let bodies = desk.outbox.erase_quarantined(id).await?;
        output::line(format_args!(
            "{bodies} bodies that could not be read held the id, and are deleted"
        ));
    } else {
        let until = (clock.now() + QUARANTINE).strftime("%F");
        output::note(format_args!(
            "bodies that could not be read are not kept by person; the last ones end on {until} (or: --quarantine)"
        ));
    }
    let code = desk.code(&target)?;
    let ordered = desk
        .erasures
        .order_anew(&code, &args.order(target, clock))
        .await?;
    if !ordered {
        output::note("it was ordered before and is under way");
    }
    output::line(format_args!("code {code}"));
    Ok(())
}

fn said(counts: Counts) -> String {
    let Counts {
        contacts,
        records,
        conversations,
        turns,
        installs,
        outbox,
    } = counts;
    let parts = [
        (contacts, "contacts"),
        (records, "user_refs"),
        (conversations, "conversations"),
        (turns, "messages"),
        (installs, "installs"),
        (outbox, "outbox items"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts.map(|(count, name)| format!("{count} {name}")).collect();
    format!("found: {}", parts.join(", "))
}

/// One line of a list.
enum Line {
    Id(usize, String),
    Bad(usize),
}

/// Reads a list line by line, however long it is.
async fn list(args: &Args, desk: &Desk, file: impl BufRead, clock: &Clock) -> anyhow::Result<()> {
    let (mut ordered, mut under_way, mut bad) = (0_usize, 0_usize, 0_usize);
    let lines = file.split(b'\n').enumerate();
    let lines = lines.filter_map(|(index, line)| line.map(|line| read(index + 1, &line)).transpose());
    let mut done = stream::iter(lines)
        .map(|line| async move {
            let (number, id) = match line.context("the list cannot be read on")? {
                Line::Bad(number) => return Ok((number, None)),
                Line::Id(number, id) => (number, id),
            };
            let target = Target::Scoped {
                id: id.into(),
                accounts: Vec::new(),
            };
            let code = desk.code(&target)?;
            let is_new = desk
                .erasures
                .order_anew(&code, &args.order(target, clock))
                .await?;
            anyhow::Ok((number, Some((code, is_new))))
        })
        .buffered(CONCURRENCY);
    while let Some(line) = done.next().await {
        match line? {
            (number, None) => {
                bad += 1;
                output::note(format_args!("line {number} is no id of Meta's"));
            }
            (number, Some((code, is_new))) => {
                ordered += usize::from(is_new);
                under_way += usize::from(!is_new);
                output::line(format_args!("{number}\t{code}"));
            }
        }
        let lines = ordered + under_way + bad;
        if lines.is_multiple_of(PROGRESS) {
            output::note(format_args!("{lines} lines"));
        }
    }
    output::note(format_args!(
        "{ordered} erasures ordered, {under_way} were under way, {bad} lines are no ids"
    ));
    Ok(())
}

/// The first column, without quotes. `None` for a line with nothing on it.
fn read(number: usize, line: &[u8]) -> Option<Line> {
    let Ok(text) = std::str::from_utf8(line) else {
        return Some(Line::Bad(number));
    };
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return None;
    }
    let first = text.split([',', ';', '\t']).next().unwrap_or_default();
    let id = first.trim().trim_matches('"');
    let is_id = (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_digit());
    Some(if is_id {
        Line::Id(number, id.to_owned())
    } else {
        Line::Bad(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_first_column_and_rubbish_is_told_by_its_line() {
        let read = |line: &[u8]| match read(7, line) {
            None => "nothing".to_owned(),
            Some(Line::Bad(number)) => format!("bad {number}"),
            Some(Line::Id(_, id)) => id,
        };
        for (line, expected) in [
            (b"218471".as_slice(), "218471"),
            (b"\xef\xbb\xbf218471\r", "218471"),
            (b" \"218471\",2026-11-29,x", "218471"),
            (b"218471;y", "218471"),
            (b"", "nothing"),
            (b" \r", "nothing"),
            (b"user_id", "bad 7"),
            (b"218 471", "bad 7"),
            (b",218471", "bad 7"),
            (b"\xff\xfe", "bad 7"),
            (&[b'1'; 33], "bad 7"),
        ] {
            assert_eq!(read(line), expected, "{line:?}");
        }
    }
}
