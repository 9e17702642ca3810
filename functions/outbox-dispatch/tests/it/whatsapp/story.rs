//! One person's story with the relay: what they say and what is answered, and what must have come of it in the end
//! whatever went wrong.

use std::cell::Cell;
use std::collections::HashSet;

use jiff::SignedDuration;
use serde_json::{Value, json};
use testkit::external_system::{Behaviour, Reply};

use super::faults::killed_before;
use super::house::{House, wake_up};
use super::tables::{Item, text};

/// A message that has failed three times goes alone; if it fails once more, those behind it pass it by.
const TRIES: usize = 4;

/// A story, as it goes.
pub(crate) struct Story<'a> {
    pub(crate) house: &'a House,
    user: String,
    conversation: String,
    /// Numbers the words of replies, so that each is there once.
    words: Cell<usize>,
    /// What the person said, in order.
    pub(crate) said: Vec<String>,
    /// How many sends may have reached Braze without our learning of it.
    pub(crate) unclear: usize,
}

/// What came of a story.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Told {
    /// Replies.
    pub(crate) replies: usize,
    /// Messages that they came in.
    pub(crate) pieces: usize,
    /// Those among them that came twice.
    pub(crate) twice: usize,
    /// Messages that others passed by, since the external system had failed at them again and again.
    pub(crate) passed_by: usize,
}

impl<'a> Story<'a> {
    pub(crate) fn of(house: &'a House, user: &str) -> Self {
        house.knows(user);
        Self {
            house,
            user: user.to_owned(),
            conversation: format!("user:{user}"),
            words: Cell::new(0),
            said: Vec::new(),
            unclear: 0,
        }
    }

    fn words(&self, count: usize) -> String {
        let from = self.words.get();
        self.words.set(from + count);
        let word = |number| {
            let end = if number % 9 == 8 { "." } else { "" };
            format!("w{number:05}{end}")
        };
        let words: Vec<String> = (from..from + count).map(word).collect();
        words.join(" ")
    }

    /// Replies of so many words.
    fn replies(&self, lengths: &[usize]) -> Reply {
        let mut reply = Reply::silent();
        for length in lengths {
            reply = reply.and(&self.words(*length));
        }
        reply
    }

    /// The next answer of the external system: replies of so many words.
    pub(crate) fn will_answer(&self, lengths: &[usize]) {
        let reply = Behaviour::Reply(self.replies(lengths));
        self.house.external_system.script(reply);
    }

    /// What the person says next.
    pub(crate) fn next_message(&self) -> String {
        format!("{} says {}", self.user, self.said.len())
    }

    pub(crate) async fn says(&mut self) {
        let (text, dispatch) = (self.next_message(), self.house.next_dispatch());
        let (status, _) = self.house.forwards(&self.user, &text, &dispatch).await;
        if status != 202 {
            // DynamoDB failed, and Braze repeats it.
            self.house.aws.clear_faults();
            let (status, answer) = self.house.forwards(&self.user, &text, &dispatch).await;
            assert_eq!(status, 202, "{answer}");
        }
        self.said.push(text);
    }

    /// As [`Story::says`], but the function dies over it, and Braze repeats it.
    pub(crate) async fn says_in_spite_of_a_death(&mut self, operation: &str) -> bool {
        let (text, dispatch) = (self.next_message(), self.house.next_dispatch());
        let taken = self.house.forwards(&self.user, &text, &dispatch);
        let died = killed_before(self.house, operation, 0, taken).await.is_none();
        self.house.aws.clear_faults();
        let (status, answer) = self.house.forwards(&self.user, &text, &dispatch).await;
        assert_eq!(status, 202, "{answer}");
        self.said.push(text);
        died
    }

    /// The external system says more, unasked.
    pub(crate) async fn adds(&self, lengths: &[usize]) {
        let mut body = Value::from(self.replies(lengths).body());
        body["conversation_id"] = self.conversation.as_str().into();
        let webhook_id = self.house.next_dispatch();
        let (status, _) = self.house.answers_signed(&body, &webhook_id).await;
        if status != 202 {
            self.house.aws.clear_faults();
            let (status, answer) = self.house.answers_signed(&body, &webhook_id).await;
            assert_eq!(status, 202, "{answer}");
        }
    }

    /// Event keys of what waits, in order.
    pub(crate) async fn waiting(&self) -> Vec<String> {
        let items = self.house.items("OutboxTable").await.unwrap();
        let waits =
            |item: &&Item| text(item, "subject") == self.conversation && text(item, "status") == "pending";
        let mut keys: Vec<String> = items
            .iter()
            .filter(waits)
            .map(|item| text(item, "event_key"))
            .collect();
        keys.sort();
        keys
    }

    /// A wake-up that names these items. DynamoDB may fail under it.
    pub(crate) async fn wakes(&self, event_keys: &[String], time: SignedDuration) {
        let event = wake_up(&self.conversation, event_keys);
        let until = self.house.clock.now() + time;
        drop(self.house.dispatch.handle_until(event, until).await);
    }

    /// The schedule. DynamoDB may fail under it.
    pub(crate) async fn ticks(&self) {
        self.house.later(SignedDuration::from_secs(31));
        let until = self.house.until();
        drop(self.house.dispatch.handle_until(json!({}), until).await);
    }

    /// All goes well from now on. Says what came of it, or what is wrong.
    pub(crate) async fn ends(self) -> Result<Told, String> {
        self.house.aws.clear_faults();
        self.house.braze.clear_script();
        self.house.external_system.clear_script();
        for _ in 0..20 {
            self.house.later(SignedDuration::from_hours(1));
            self.ticks().await;
            if self.waiting().await.is_empty() {
                break;
            }
        }
        let left = self.waiting().await;
        let dead = self.house.rows("dead").await;
        if !left.is_empty() || !dead.is_empty() {
            return Err(format!("pending {left:?}, dead {dead:?}"));
        }
        let turns = self.house.stored(&self.conversation, "turn#").await;
        let (users, answers): (Vec<&Item>, Vec<&Item>) =
            turns.iter().partition(|turn| text(turn, "role") == "user");
        let said: Vec<String> = users.iter().map(|turn| text(turn, "text")).collect();
        if said != self.said || users.iter().any(|turn| text(turn, "status") != "handed_over") {
            return Err(format!("said {:?}, handed over {said:?}", self.said));
        }
        let mut handed = self.house.external_system.texts(&self.conversation);
        let mut seen = HashSet::new();
        handed.retain(|text| seen.insert(text.clone()));
        if handed != self.said {
            return Err(format!("said {:?}, the system got {handed:?}", self.said));
        }
        let passed_by = self.passed_by()?;
        let answered: Vec<String> = answers.iter().map(|turn| text(turn, "text")).collect();
        let got = self.house.got(&self.user);
        let twice = repeated(&answered, &got)?;
        if twice > self.unclear {
            return Err(format!(
                "{twice} messages twice, but only {} may be",
                self.unclear
            ));
        }
        Ok(Told {
            replies: answered.len(),
            pieces: got.len(),
            twice,
            passed_by,
        })
    }

    /// How many messages were passed by, if none was too early.
    fn passed_by(&self) -> Result<usize, String> {
        let (system, mut passed_by) = (&self.house.external_system, 0);
        for (at, text) in self.said.iter().enumerate() {
            let later = self.said.iter().skip(at + 1);
            let tries: Vec<usize> = later
                .filter_map(|later| system.tries_before_passed_by(&self.conversation, text, later))
                .collect();
            if tries.iter().any(|tries| *tries < TRIES) {
                return Err(format!("{text:?} was passed by after {tries:?} tries"));
            }
            passed_by += usize::from(!tries.is_empty());
        }
        Ok(passed_by)
    }
}

/// How many messages of `got` came again, if otherwise they say exactly what was answered, piece by piece and in order.
/// One that comes again does so at once, whole or in other pieces, and before anything that follows.
fn repeated(answered: &[String], got: &[String]) -> Result<usize, String> {
    let words: Vec<&str> = answered.iter().flat_map(|text| text.split_whitespace()).collect();
    let (mut last, mut next, mut twice) = (0, 0, 0);
    for (at, piece) in got.iter().enumerate() {
        let piece: Vec<&str> = piece.split_whitespace().collect();
        let continues = |from: usize| words.get(from..).is_some_and(|rest| rest.starts_with(&piece));
        if continues(next) {
            last = next;
        } else if continues(last) {
            twice += 1;
        } else {
            return Err(format!("message {at} is out of order: {piece:?}"));
        }
        next = last + piece.len();
    }
    if next == words.len() {
        Ok(twice)
    } else {
        Err(format!("{} of {} words arrived", next, words.len()))
    }
}

#[test]
fn what_is_lost_doubled_or_out_of_order_is_seen() {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let answered = texts(&["a b", "c d"]);
    let judged = |got: &[&str]| repeated(&answered, &texts(got)).ok();
    assert_eq!(judged(&["a b", "c d"]), Some(0));
    assert_eq!(judged(&["a", "b", "c d"]), Some(0));
    assert_eq!(judged(&["a b", "a", "b", "c d"]), Some(1));
    assert_eq!(judged(&["a b", "c d", "c d"]), Some(1));
    for wrong in [
        &["a b"] as &[&str],
        &["c d", "a b"],
        &["b", "a", "c d"],
        &["a b", "c d", "a b"],
    ] {
        assert_eq!(judged(wrong), None, "{wrong:?}");
    }
}
