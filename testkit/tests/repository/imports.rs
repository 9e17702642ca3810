use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use crate::source::{Use, Workspace};

const CRATES: [&str; 10] = [
    "shared",
    "functions/data-deletion",
    "functions/messenger-verify",
    "functions/messenger-events",
    "functions/messenger-send",
    "functions/fbe-install-webhook",
    "functions/whatsapp-relay",
    "functions/outbox-dispatch",
    "testkit",
    "cli",
];

static WORKSPACE: LazyLock<Workspace> = LazyLock::new(|| Workspace::read(&CRATES));

/// What is below all rooms: values and settings.
const GROUND: [&str; 6] = ["clock", "config", "digest", "json", "personal", "sdk_error"];

/// The rooms of `shared` above that, and what each of them may use.
const ROOMS: [(&str, &[&str]); 12] = [
    ("secrets", &["telemetry"]),
    ("telemetry", &[]),
    ("webhook", &["secrets", "telemetry"]),
    ("store", &["telemetry"]),
    ("outbox", &["store", "telemetry"]),
    // Who was erased, which every job's table knows.
    ("erase", &["outbox", "store", "telemetry"]),
    (
        "messenger",
        &["webhook", "outbox", "erase", "store", "secrets", "telemetry"],
    ),
    (
        "fbe",
        &["webhook", "outbox", "erase", "store", "secrets", "telemetry"],
    ),
    (
        "whatsapp",
        &["webhook", "outbox", "erase", "store", "secrets", "telemetry"],
    ),
    // A client speaks the words of the job that it serves, and stores nothing.
    (
        "clients",
        &["messenger", "fbe", "whatsapp", "secrets", "telemetry"],
    ),
    // Judges what Graph answers.
    ("health", &["clients"]),
    ("start", &["clients", "webhook", "telemetry"]),
];

const JOBS: [&str; 3] = ["messenger", "fbe", "whatsapp"];

/// What only the doors of a job may use: its table, and the secrets that it keeps.
const DOORS: [&str; 2] = ["table", "secrets"];
/// Rooms that a decider does not know…
const IMPURE_ROOMS: [&str; 4] = ["clock", "secrets", "store", "telemetry"];
/// …and crates: AWS, HTTP, asynchronous code, metrics and logs.
const IMPURE_CRATES: [&str; 14] = [
    "async_trait",
    "aws_config",
    "aws_sdk_dynamodb",
    "aws_sdk_secretsmanager",
    "aws_smithy_types",
    "futures_util",
    "http",
    "lambda_http",
    "lambda_runtime",
    "metrics",
    "reqwest",
    "serde_dynamo",
    "tokio",
    "tracing",
];

/// The crate and, inside its `src`, the room and the way on from there: `("shared", "fbe", "table")`.
fn location(file: &str) -> (&str, &str, &str) {
    let (krate, inside) = file.split_once("/src/").unwrap();
    let inside = inside.strip_suffix(".rs").unwrap();
    let (room, rest) = inside.split_once('/').unwrap_or((inside, ""));
    (krate, room, rest)
}

/// Fails if one of the uses breaks the rule. `Use` is handed over as the two files' locations.
fn hold(rule: &str, breaks: impl Fn((&str, &str, &str), (&str, &str, &str)) -> bool) {
    let uses = WORKSPACE.uses();
    let broken = uses
        .iter()
        .filter(|one| breaks(location(&one.from), location(&one.to)));
    report(rule, broken);
}

fn report<'a>(rule: &str, uses: impl Iterator<Item = &'a Use>) {
    let mut arrows: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for one in uses {
        arrows.entry((&one.from, &one.to)).or_default().push(&one.name);
    }
    let lines = arrows
        .iter()
        .map(|((from, to), names)| format!("{from} takes from {to}: {}", names.join(", ")));
    assert!(
        arrows.is_empty(),
        "{rule}\n{}",
        lines.collect::<Vec<_>>().join("\n")
    );
}

#[test]
fn functions_use_shared_alone_and_only_the_command_line_uses_them() {
    // The fakes judge by their own means what the functions send; only the time do they share.
    hold(
        "crates that must not know each other:",
        |(from, ..), (to, room, _)| {
            let allowed = from == to
                || from == "cli"
                || (from.starts_with("functions/") && to == "shared")
                || (from == "testkit" && to == "shared" && room == "clock");
            !allowed
        },
    );
}

#[test]
fn the_rooms_of_shared_use_what_is_below_them() {
    hold(
        "rooms that must not know each other:",
        |(krate, from, _), (_, to, _)| {
            let row = ROOMS.iter().find(|(room, _)| *room == from);
            let below = row.map_or(&[][..], |(_, below)| below);
            krate == "shared" && from != to && !GROUND.contains(&to) && !below.contains(&to)
        },
    );
}

#[test]
fn the_jobs_of_the_dispatcher_do_not_know_each_other() {
    hold(
        "jobs that must not know each other:",
        |(krate, from, _), (_, to, _)| {
            krate == "functions/outbox-dispatch" && JOBS.contains(&from) && JOBS.contains(&to) && from != to
        },
    );
}

/// Whether a file of a job is pure: what is known, the events and the time go in, a plan comes out.
fn is_decider((krate, room, inside): (&str, &str, &str)) -> bool {
    let door = inside.split('/').next().unwrap_or(inside);
    krate == "shared" && JOBS.contains(&room) && !DOORS.contains(&door)
}

#[test]
fn deciders_know_no_store_no_clock_and_nothing_asynchronous() {
    hold("deciders that know more than they need:", |from, (_, room, _)| {
        is_decider(from) && IMPURE_ROOMS.contains(&room)
    });
    let outside = WORKSPACE.outside();
    let impure = outside
        .iter()
        .filter(|(file, name)| is_decider(location(file)) && IMPURE_CRATES.contains(&name.as_str()));
    let impure: Vec<_> = impure.collect();
    assert!(impure.is_empty(), "deciders that are not pure: {impure:#?}");
}

/// The files that `file` takes something from, directly or through others.
fn reach<'a>(uses: &BTreeMap<&'a str, BTreeSet<&'a str>>, file: &'a str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut next = vec![file];
    while let Some(file) = next.pop() {
        let taken = uses.get(file).into_iter().flatten();
        next.extend(taken.filter(|to| reached.insert(**to)));
    }
    reached
}

/// A file and the folder of its name count as one towards the children: see [`Workspace::uses`].
#[test]
fn no_files_go_round_in_a_circle() {
    let uses = WORKSPACE.uses();
    assert!(uses.len() > 1_000, "{} uses were found", uses.len());
    let mut taken: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for one in &uses {
        taken.entry(&one.from).or_default().insert(&one.to);
    }
    let circle = uses
        .iter()
        .filter(|one| reach(&taken, &one.to).contains(one.from.as_str()));
    report("files in a circle:", circle);
}
