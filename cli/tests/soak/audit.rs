//! What must hold once everything has come to rest.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::time::{Duration, Instant};

use aho_corasick::AhoCorasick;
use bridge::check;
use bridge::inspect::{self, CONTACTS, CONVERSATIONS, INSTALLS, OUTBOX, Snapshot};
use bridge::stack::LocalStack;
use jiff::SignedDuration;
use serde_json::{Value, json};
use testkit::braze::InputArray;
use testkit::partner::Notice;

use crate::faults::Trouble;
use crate::traffic::{Traffic, question};
use crate::world::{PAGE, World};

/// For a machine that also has other things to do.
const PATIENCE: Duration = Duration::from_mins(15);

/// How long it is waited before the clock is moved.
const MOMENT: Duration = Duration::from_secs(2);

/// The longest claim is that on a business; the one on a conversation depends on a setting and is shorter here.
const LONGEST_CLAIM: SignedDuration = SignedDuration::from_mins(3);

/// What was counted, in the order in which it is shown; the last column names what is wrong.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<(&'static str, String)>,
    wrong: Vec<String>,
}

impl Report {
    fn count(&mut self, what: &'static str, number: usize) {
        self.rows.push((what, number.to_string()));
    }

    /// The same of something of which there must be none.
    fn none(&mut self, what: &'static str, those: Vec<String>) {
        self.count(what, those.len());
        self.wrong
            .extend(those.into_iter().map(|one| format!("{what}: {one}")));
    }

    pub(crate) fn is_good(&self) -> bool {
        self.wrong.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, number) in &self.rows {
            writeln!(f, "| {what:<62} | {number:>9} |")?;
        }
        for wrong in self.wrong.iter().take(40) {
            writeln!(f, "{wrong}")?;
        }
        Ok(())
    }
}

/// Waits until nothing is pending. Where nothing is due, the clock moves on to what will be: backoffs take minutes in which
/// there is nothing to see.
async fn comes_to_rest(stack: &LocalStack, world: &World) -> bool {
    let began = Instant::now();
    while !inspect::drained(stack, MOMENT).await.unwrap() {
        if began.elapsed() > PATIENCE {
            return false;
        }
        let soonest = inspect::soonest_due(stack).await.unwrap();
        if let Some(soonest) = soonest.filter(|at| *at > world.clock.now()) {
            world.clock.set(soonest);
        }
    }
    true
}

#[expect(clippy::too_many_lines, reason = "it is a table")]
pub(crate) async fn audit(world: &World, traffic: &Traffic, trouble: &Trouble) -> Report {
    let began = Instant::now();
    world.kill();
    // The claims of processes that were killed have run out.
    world.clock.set(world.clock.now() + LONGEST_CLAIM);
    let stack = world.look_inside().await;
    let is_drained = comes_to_rest(&stack, world).await;
    let rest = began.elapsed();
    let snapshot = Snapshot::take(&stack).await.unwrap();
    let expected = traffic.expected().clone();
    let mut report = Report::default();
    report.count("requests, redeliveries among them", expected.requests);
    report.count("redeliveries", expected.redeliveries);
    report.count(
        "faults of Braze, Graph, the external system and the platform",
        trouble.faults,
    );
    report.count("of them with an effect and a lost answer", trouble.ambiguous);
    report.count("outages of seconds", trouble.outages);
    report.count("kill -9", trouble.kills);
    report.rows.push((
        "until everything had come to rest",
        format!("{} s", rest.as_secs()),
    ));
    report.none(
        "still pending after that",
        (!is_drained)
            .then(|| "the outbox".to_owned())
            .into_iter()
            .collect(),
    );
    report.none(
        "tables and Braze disagree",
        disagreements(&stack, &snapshot, world),
    );

    report.count("people on Messenger", expected.people.len());
    report.count("their events", expected.events);
    report.none(
        "people linked wrongly or lost",
        mislinked(&snapshot, &expected.people),
    );

    let sent: Vec<(String, String)> = world
        .graph
        .sent_messages()
        .into_iter()
        .map(|sent| {
            let text = sent.message["text"].as_str().unwrap().to_owned();
            (sent.recipient, text)
        })
        .collect();
    let sends = &expected.sends;
    report.count("messages sent to them by campaigns", sends.len());
    report.none("of them lost, or sent to somebody else", missing(sends, &sent));
    let accepted = [sends.as_slice(), &expected.may_be_sent].concat();
    report.none("sent though no campaign was taken in", missing(&sent, &accepted));
    report.count("of them twice", doubled(&sent));
    let events: Vec<String> = world
        .braze
        .events()
        .iter()
        .map(|(profile, event)| {
            let properties = serde_json::to_string(&event.properties).unwrap();
            format!("{} {} {} {properties}", profile.braze_id, event.name, event.time)
        })
        .collect();
    report.count("custom events", events.len());
    report.count("of them twice", doubled(&events));
    report.count("messages written since the last link", expected.told.len());
    report.none("of them not told to Braze", missing(&expected.told, &told(world)));

    report.count(
        "messages on WhatsApp",
        expected.written.values().map(Vec::len).sum(),
    );
    let replies = Replies::to(&expected.written, world);
    report.none("of them not answered", replies.lost);
    report.none("of them answered to somebody else", replies.strayed);
    report.count("of them answered twice", replies.repeated);
    report.count(
        "of them passed by, as they had failed again and again",
        replies.passed_by,
    );
    report.none("of them out of order without such a cause", replies.disordered);

    report.none(
        "refused by Braze, Graph, the external system or the platform",
        world.refusals(),
    );
    report.count("businesses", expected.businesses.len());
    report.none(
        "businesses in the wrong state",
        businesses(&snapshot, world, &expected.businesses),
    );
    report.count(
        "notices of them that the partner's platform has got",
        world.partner.notices().len(),
    );
    report.none(
        "installs and removals that it was not told of in their order",
        untold(world, &expected.businesses),
    );

    report.count("people erased", expected.erased);
    report.none(
        "what is still stored of them",
        remembered(&snapshot, &expected.forgotten),
    );

    let done = [
        expected.events,
        expected.told.len(),
        sends.len(),
        expected.written.len(),
        expected.erased,
    ];
    report.none(
        "jobs that nobody has asked for",
        vec![String::new(); done.iter().filter(|done| **done == 0).count()],
    );

    let doubles = doubled(&sent) + doubled(&events) + replies.repeated;
    report.count("doubled after a lost answer or a kill", doubles);
    let in_doubt = trouble.ambiguous + trouble.kills;
    let repeated = doubled(&sent) + repeating(world) + replies.repeated;
    let unexplained = repeated.saturating_sub(IN_FLIGHT * in_doubt);
    report.none("doubled without such a cause", vec![String::new(); unexplained]);
    report.none(
        "personal data or secrets in the log",
        leaks(world, &expected.personal),
    );
    stack.stop().await;
    report
}

/// Calls that may be under way when the process is killed, each of which may then be made once more. A fault is one.
const IN_FLIGHT: usize = 4;

/// A WhatsApp message that has failed three times goes alone; if it fails once more, those behind it pass it by.
const TRIES: usize = 4;

/// What came of the messages on WhatsApp.
#[derive(Default)]
struct Replies {
    lost: Vec<String>,
    strayed: Vec<String>,
    repeated: usize,
    passed_by: usize,
    disordered: Vec<String>,
}

impl Replies {
    fn to(written: &BTreeMap<String, Vec<u32>>, world: &World) -> Self {
        let mut replies = Self::default();
        for (user, numbers) in written {
            let (answered, strayed) = answered(world, user);
            replies.strayed.extend(strayed);
            let lost = numbers.iter().filter(|number| !answered.contains(number));
            replies.lost.extend(lost.map(|number| format!("{user} {number}")));
            let mut first = answered.clone();
            let mut seen = BTreeSet::new();
            first.retain(|number| seen.insert(*number));
            replies.repeated += answered.len() - first.len();
            for (at, number) in first.iter().enumerate() {
                let tries = tries_before_passed_by(world, user, *number, &first[..at]);
                if tries.iter().any(|tries| *tries < TRIES) {
                    let disordered = format!("{user} {number} after {tries:?} tries: {first:?}");
                    replies.disordered.push(disordered);
                } else if !tries.is_empty() {
                    replies.passed_by += 1;
                }
            }
        }
        replies
    }
}

/// How often the external system had failed at a person's message before each of the later ones that were answered
/// earlier. One that was handed over in its order, and whose answer was not sent so, counts as none.
fn tries_before_passed_by(world: &World, user: &str, number: u32, answered: &[u32]) -> Vec<usize> {
    let later = answered.iter().filter(|answered| **answered > number);
    later
        .map(|later| {
            let [text, later] = [number, *later].map(|number| question(user, number));
            let conversation = format!("user:{user}");
            let tries = world.system.tries_before_passed_by(&conversation, &text, &later);
            tries.unwrap_or_default()
        })
        .collect()
}

fn disagreements(stack: &LocalStack, snapshot: &Snapshot, world: &World) -> Vec<String> {
    let mut problems = check::outbox(snapshot, stack.clock().now());
    problems.extend(check::contacts(stack, snapshot, &world.braze).unwrap());
    problems
}

fn mislinked(snapshot: &Snapshot, people: &BTreeMap<String, Option<String>>) -> Vec<String> {
    let of = |psid: &str| {
        let item = snapshot
            .table(CONTACTS)
            .get(&format!("messenger#{PAGE}#{psid}"))?;
        let contact = inspect::contact(item)?;
        Some(contact.user_id().map(str::to_owned))
    };
    let wrong = people
        .iter()
        .filter(|(psid, user)| of(psid).as_ref() != Some(*user));
    wrong
        .map(|(psid, user)| format!("{psid} is {:?} instead of {user:?}", of(psid)))
        .collect()
}

/// Users whose profiles hold that a message was written, and when.
fn told(world: &World) -> Vec<(String, String)> {
    let events = world.braze.events().into_iter();
    let messages = events.filter(|(_, event)| event.name == "messenger_message");
    messages
        .filter_map(|(profile, event)| Some((profile.external_id?, event.time)))
        .collect()
}

fn missing(expected: &[(String, String)], there: &[(String, String)]) -> Vec<String> {
    let there: HashSet<&(String, String)> = there.iter().collect();
    let missing = expected.iter().filter(|one| !there.contains(one));
    missing.map(|(whose, what)| format!("{whose} {what}")).collect()
}

fn doubled<T: Eq + Hash>(there: &[T]) -> usize {
    let distinct: HashSet<&T> = there.iter().collect();
    there.len() - distinct.len()
}

/// Requests with custom events that Braze had already: one lost answer repeats all that its request held.
fn repeating(world: &World) -> usize {
    let what = |name: &Value, time: &Value, properties: &Value| json!([name, time, properties]).to_string();
    let mut times: HashMap<(String, String), usize> = HashMap::new();
    for (profile, event) in world.braze.events() {
        let event = what(&event.name.into(), &event.time.into(), &event.properties.into());
        *times.entry((profile.braze_id, event)).or_default() += 1;
    }
    // The last request with such an event is one that repeated it.
    let mut last: HashMap<String, usize> = HashMap::new();
    for (number, request) in world.braze.track_requests().iter().enumerate() {
        for event in request.objects(InputArray::Events) {
            let properties = event.get("properties").cloned().unwrap_or(json!({}));
            last.insert(what(&event["name"], &event["time"], &properties), number);
        }
    }
    let twice = times.iter().filter(|(_, times)| **times > 1);
    let repeating = twice.map(|((_, event), _)| last[event]);
    repeating.collect::<HashSet<_>>().len()
}

/// The numbers of the messages that a person's replies answer, in order, and what was answered that they did not write.
fn answered(world: &World, user: &str) -> (Vec<u32>, Vec<String>) {
    let profile = world.braze.profile(user).unwrap();
    let sent = world
        .braze
        .sent_messages()
        .into_iter()
        .filter(|sent| sent.braze_id == profile.braze_id);
    let texts = sent.map(|sent| {
        sent.trigger_properties["external_system_msg_body"]
            .as_str()
            .unwrap()
            .to_owned()
    });
    let (mut numbers, mut strayed) = (Vec::new(), Vec::new());
    for text in texts {
        for rest in text.split("question-").skip(1) {
            let number = rest.get(4..9).unwrap().parse::<u32>().unwrap();
            if format!("question-{rest}").starts_with(&question(user, number)) {
                numbers.push(number);
            } else {
                strayed.push(format!("{user} got {rest}"));
            }
        }
    }
    (numbers, strayed)
}

/// An install's state, and the last that its business was told.
fn businesses(snapshot: &Snapshot, world: &World, expected: &BTreeMap<String, usize>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (business, times) in expected {
        // The first time it is installed, and the second time removed.
        let wanted = if times % 2 == 1 {
            ("active", "installed")
        } else {
            ("uninstalled", "uninstalled")
        };
        let item = snapshot.table(INSTALLS).get(business);
        let status = item.and_then(|item| item.pointer("/install/status").or(item.get("status"))?.as_str());
        let events = world
            .braze
            .profile(business)
            .map(|profile| profile.events)
            .unwrap_or_default();
        let told = events
            .iter()
            .rev()
            .filter_map(|event| event.properties["change"].as_str());
        let mut told = told.filter(|change| matches!(*change, "installed" | "uninstalled"));
        let told = told.next();
        if (status, told) != (Some(wanted.0), Some(wanted.1)) {
            wrong.push(format!(
                "{business} is {status:?}, was told {told:?}, should be {wanted:?}"
            ));
        }
    }
    wrong
}

/// Businesses of which the platform was told something else than that the app was installed and removed in turn.
fn untold(world: &World, expected: &BTreeMap<String, usize>) -> Vec<String> {
    let notices = world.partner.notices();
    let mut wrong = Vec::new();
    for (business, times) in expected {
        let of = |notice: &&Notice| notice.body["data"]["business"] == business.as_str();
        let statuses = notices
            .iter()
            .filter(of)
            .map(|notice| notice.body["data"]["status"].clone());
        let mut told: Vec<Value> = statuses.collect();
        told.dedup();
        let wanted = ["active", "uninstalled"].into_iter().cycle().take(*times);
        if told != wanted.map(Value::from).collect::<Vec<_>>() {
            wrong.push(format!("{business} {times} times: {told:?}"));
        }
    }
    wrong
}

fn leaks(world: &World, personal: &[String]) -> Vec<String> {
    let log = std::fs::read_to_string(world.log()).unwrap();
    assert!(!log.is_empty(), "nothing was logged");
    let mut secrets = secrets(&world.secrets);
    // What those begin with that Graph makes.
    secrets.push("EAAB-system-user-".to_owned());
    let hidden: Vec<&String> = personal.iter().chain(&secrets).collect();
    found(&hidden, &log)
}

fn remembered(snapshot: &Snapshot, forgotten: &[String]) -> Vec<String> {
    let forgotten: Vec<&String> = forgotten.iter().collect();
    let of = |table: &str| {
        let items = serde_json::to_string(snapshot.table(table)).unwrap();
        found(&forgotten, &items)
            .into_iter()
            .map(move |found| format!("{found} in {table}"))
            .collect::<Vec<_>>()
    };
    [CONTACTS, CONVERSATIONS, INSTALLS, OUTBOX].map(of).concat()
}

/// Which of `names` occur in `text`. They are tens of thousands, so all are searched at once.
fn found(names: &[&String], text: &str) -> Vec<String> {
    let search = AhoCorasick::new(names).unwrap();
    let found: BTreeSet<usize> = search
        .find_overlapping_iter(text)
        .map(|found| found.pattern().as_usize())
        .collect();
    found.into_iter().map(|found| names[found].clone()).collect()
}

/// All values of the secrets that open something.
fn secrets(value: &Value) -> Vec<String> {
    match value {
        Value::Object(members) => members
            .iter()
            .filter(|(name, _)| *name != "app_id")
            .flat_map(|(_, value)| secrets(value))
            .collect(),
        Value::String(text) => vec![text.clone()],
        _ => Vec::new(),
    }
}
