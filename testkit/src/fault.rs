//! Misbehaviour of a remote service, scripted by a test.
//!
//! A fault says two things that matter to a client and look alike from the outside: whether the request had its
//! effect, and what the client sees. `braze::faults` and `graph::faults` make those that the services are known for.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

/// One thing that goes wrong with one request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The request has no effect and is answered with this.
    Answer(Answer),
    /// The request has its effect, but is answered with this instead of the truth.
    ProcessedThen(Answer),
    /// The request has its effect, and the true answer comes only after this time.
    Late(Duration),
    /// The request has no effect. The connection stays silent for this time and is then closed.
    Silence(Duration),
    /// The connection is closed before the request has an effect.
    CutBeforeProcessing,
    /// The request has its effect, and the connection is closed before the answer.
    CutAfterProcessing,
}

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header names and values, in order.
    pub headers: Vec<(String, String)>,
    /// The body's bytes.
    pub body: Bytes,
}

impl Answer {
    /// An answer with a JSON body and its content type.
    #[must_use]
    pub fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: Bytes::from(body.to_string()),
        }
    }

    /// An answer with a body that is not JSON, as load balancers and proxies give.
    #[must_use]
    pub fn html(status: u16, body: &str) -> Self {
        Self {
            status,
            headers: vec![("content-type".to_owned(), "text/html".to_owned())],
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    /// The same answer with one more header.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "numbers and texts alike, without `&` at each call"
    )]
    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }
}

/// What came of a request: an answer (`None` is a closed connection) after a delay.
pub(crate) struct Effect {
    pub(crate) answer: Option<Answer>,
    pub(crate) delay: Duration,
}

impl Effect {
    pub(crate) fn of(answer: Answer) -> Self {
        Self {
            answer: Some(answer),
            delay: Duration::ZERO,
        }
    }

    fn cut_after(delay: Duration) -> Self {
        Self { answer: None, delay }
    }
}

impl Fault {
    /// Plays the fault; `process` runs the request through the model if it is to have an effect.
    pub(crate) fn play(self, process: impl FnOnce() -> Answer) -> Effect {
        match self {
            Self::Answer(answer) => Effect::of(answer),
            Self::ProcessedThen(answer) => {
                process();
                Effect::of(answer)
            }
            Self::Late(delay) => Effect {
                answer: Some(process()),
                delay,
            },
            Self::Silence(delay) => Effect::cut_after(delay),
            Self::CutBeforeProcessing => Effect::cut_after(Duration::ZERO),
            Self::CutAfterProcessing => {
                process();
                Effect::cut_after(Duration::ZERO)
            }
        }
    }
}

/// The steps that a test has scripted: one queue per endpoint, and an outage over everything.
pub(crate) struct Script<Endpoint, Step> {
    queues: BTreeMap<Endpoint, VecDeque<Step>>,
    outage: Option<(Step, Option<Instant>)>,
}

impl<Endpoint: Ord + Copy, Step: Clone> Script<Endpoint, Step> {
    pub(crate) fn new() -> Self {
        Self {
            queues: BTreeMap::new(),
            outage: None,
        }
    }

    pub(crate) fn push(&mut self, endpoint: Endpoint, step: Step) {
        self.queues.entry(endpoint).or_default().push_back(step);
    }

    /// Every request meets `step` until `lasting` is over, or else until [`Self::end_outage`].
    pub(crate) fn begin_outage(&mut self, step: Step, lasting: Option<Duration>) {
        self.outage = Some((step, lasting.map(|time| Instant::now() + time)));
    }

    pub(crate) fn end_outage(&mut self) {
        self.outage = None;
    }

    /// What the next request to `endpoint` meets. An outage comes first and uses up no queued step.
    pub(crate) fn next(&mut self, endpoint: Endpoint) -> Option<Step> {
        if let Some((step, until)) = &self.outage {
            if until.is_none_or(|until| Instant::now() < until) {
                return Some(step.clone());
            }
            self.outage = None;
        }
        self.queues.get_mut(&endpoint)?.pop_front()
    }

    /// Endpoints with steps that no request has met, and how many.
    pub(crate) fn left(&self) -> Vec<(Endpoint, usize)> {
        self.queues
            .iter()
            .map(|(endpoint, queue)| (*endpoint, queue.len()))
            .filter(|(_, steps)| *steps > 0)
            .collect()
    }

    pub(crate) fn clear(&mut self) {
        self.queues.clear();
        self.outage = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outage_ends_by_itself_and_uses_up_no_step() {
        let mut script = Script::new();
        script.push('a', 1);
        script.begin_outage(2, Some(Duration::from_millis(50)));
        assert_eq!(script.next('a'), Some(2));
        assert_eq!(script.next('b'), Some(2));
        tokio::time::advance(Duration::from_millis(60)).await;
        assert_eq!(script.left(), [('a', 1)]);
        assert_eq!((script.next('a'), script.next('a')), (Some(1), None));
        assert!(script.left().is_empty());
    }

    #[test]
    fn a_fault_says_whether_the_request_had_its_effect() {
        let answer = Answer::html(502, "");
        for (fault, processed, seen) in [
            (Fault::Answer(answer.clone()), false, Some(502)),
            (Fault::ProcessedThen(answer), true, Some(502)),
            (Fault::Late(Duration::from_secs(1)), true, Some(200)),
            (Fault::Silence(Duration::from_secs(1)), false, None),
            (Fault::CutBeforeProcessing, false, None),
            (Fault::CutAfterProcessing, true, None),
        ] {
            let mut ran = false;
            let shown = format!("{fault:?}");
            let effect = fault.play(|| {
                ran = true;
                Answer::html(200, "")
            });
            assert_eq!(
                (ran, effect.answer.map(|answer| answer.status)),
                (processed, seen),
                "{shown}"
            );
        }
    }
}
