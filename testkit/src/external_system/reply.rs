//! What the external system answers, and how it behaves otherwise.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::fault::{Answer, Fault};

/// An answer that fits: messages to send, and what is to happen with the conversation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reply {
    messages: Vec<(String, Option<String>)>,
    handoff: Option<bool>,
    attributes: Option<Value>,
}

impl Reply {
    /// Nothing to send.
    #[must_use]
    pub fn silent() -> Self {
        Self::default()
    }

    /// One message.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::silent().and(text)
    }

    /// One message more, after the others.
    #[must_use]
    pub fn and(mut self, text: &str) -> Self {
        self.messages.push((text.to_owned(), None));
        self
    }

    /// One message more, through the campaign that a route name or a campaign id stands for.
    #[must_use]
    pub fn and_through(mut self, text: &str, campaign: &str) -> Self {
        self.messages.push((text.to_owned(), Some(campaign.to_owned())));
        self
    }

    /// Hands the conversation over to people (`true`) or back to the bot.
    #[must_use]
    pub fn handoff(mut self, to_people: bool) -> Self {
        self.handoff = Some(to_people);
        self
    }

    /// Attributes for the person's profile: a JSON object.
    #[must_use]
    pub fn attributes(mut self, attributes: Value) -> Self {
        self.attributes = Some(attributes);
        self
    }

    /// The body of an answer at once. That of a later one has a `conversation_id` besides.
    #[must_use]
    pub fn body(&self) -> Map<String, Value> {
        let message = |(text, campaign): &(String, Option<String>)| match campaign {
            Some(campaign) => json!({"text": text, "campaign": campaign}),
            None => json!({"text": text}),
        };
        let mut body = Map::new();
        body.insert("replies".to_owned(), self.messages.iter().map(message).collect());
        if let Some(handoff) = self.handoff {
            body.insert("handoff".to_owned(), handoff.into());
        }
        if let Some(attributes) = &self.attributes {
            body.insert("attributes".to_owned(), attributes.clone());
        }
        body
    }

    /// All messages in one, as a chat completion gives it; `None` if there is none.
    pub(super) fn joined(&self) -> Option<String> {
        let texts: Vec<_> = self.messages.iter().map(|(text, _)| text.as_str()).collect();
        (!texts.is_empty()).then(|| texts.join("\n\n"))
    }
}

/// How the external system deals with a handover.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// Answers `You said: ` and what was said, lines joined.
    Echo,
    /// Answers this.
    Reply(Reply),
    /// Takes this time before it does the other.
    Slow(Duration, Box<Behaviour>),
    /// Answers 202 at once and calls `reply_url` after this time with what the other answers. A chat completion has
    /// no `reply_url`; there it is only slow.
    Later(Duration, Box<Behaviour>),
    /// Goes wrong.
    Fault(Fault),
    /// Goes wrong if something in the messages holds this, and else does the other.
    FailsAt(String, Fault, Box<Behaviour>),
    /// Takes this time if something in the messages holds this, and does the other in any case.
    SlowAt(String, Duration, Box<Behaviour>),
    /// Goes wrong if the body has more bytes than this, and else does the other.
    FailsAbove(usize, Fault, Box<Behaviour>),
}

impl Behaviour {
    /// Answers one message.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Reply(Reply::text(text))
    }

    /// Echoes after this time.
    #[must_use]
    pub fn slow(duration: Duration) -> Self {
        Self::Slow(duration, Box::new(Self::Echo))
    }

    /// Accepts with 202 and echoes to `reply_url` after this time.
    #[must_use]
    pub fn later(duration: Duration) -> Self {
        Self::Later(duration, Box::new(Self::Echo))
    }

    /// Fails with this status.
    #[must_use]
    pub fn failing(status: u16) -> Self {
        Self::Fault(failure(status))
    }

    /// Echoes, but fails with this status if something in the messages holds `word`.
    #[must_use]
    pub fn failing_at(word: &str, status: u16) -> Self {
        Self::FailsAt(word.to_owned(), failure(status), Box::new(Self::Echo))
    }

    /// Echoes, but fails with this status if the body has more bytes than this.
    #[must_use]
    pub fn failing_above(bytes: usize, status: u16) -> Self {
        Self::FailsAbove(bytes, failure(status), Box::new(Self::Echo))
    }

    /// Answers 200 with JSON of another shape than either kind promises.
    #[must_use]
    pub fn malformed() -> Self {
        Self::Fault(Fault::Answer(Answer::json(
            200,
            &json!({"replies": "hello", "choices": {}}),
        )))
    }

    /// Answers 200 with what is not JSON.
    #[must_use]
    pub fn not_json() -> Self {
        Self::Fault(Fault::Answer(Answer::html(
            200,
            "<html><body>Welcome</body></html>",
        )))
    }

    /// Never answers; the connection is closed after this time.
    #[must_use]
    pub fn silence(duration: Duration) -> Self {
        Self::Fault(Fault::Silence(duration))
    }
}

fn failure(status: u16) -> Fault {
    let body = json!({"error": {"message": "scripted failure", "type": "server_error"}});
    Fault::Answer(Answer::json(status, &body))
}

/// What a behaviour comes to for one handover.
pub(super) enum Deed {
    Reply { after: Duration, reply: Reply },
    CallBack { after: Duration, reply: Reply },
    Fault { after: Duration, fault: Fault },
}

impl Behaviour {
    /// `said` is what the messages say, `bytes` how long the body is.
    pub(super) fn deed(self, said: &str, bytes: usize) -> Deed {
        match self {
            Self::Echo => Self::text(&format!("You said: {said}")).deed(said, bytes),
            Self::Reply(reply) => Deed::Reply {
                after: Duration::ZERO,
                reply,
            },
            Self::Fault(fault) => Deed::Fault {
                after: Duration::ZERO,
                fault,
            },
            Self::FailsAt(word, fault, _) if said.contains(&word) => Self::Fault(fault).deed(said, bytes),
            Self::FailsAbove(limit, fault, _) if bytes > limit => Self::Fault(fault).deed(said, bytes),
            Self::SlowAt(word, time, then) if said.contains(&word) => {
                Self::Slow(time, then).deed(said, bytes)
            }
            Self::FailsAt(_, _, then) | Self::FailsAbove(_, _, then) | Self::SlowAt(_, _, then) => {
                then.deed(said, bytes)
            }
            Self::Slow(time, then) => match then.deed(said, bytes) {
                Deed::Reply { after, reply } => Deed::Reply {
                    after: after + time,
                    reply,
                },
                Deed::Fault { after, fault } => Deed::Fault {
                    after: after + time,
                    fault,
                },
                call_back @ Deed::CallBack { .. } => call_back,
            },
            Self::Later(time, then) => match then.deed(said, bytes) {
                Deed::Reply { after, reply } | Deed::CallBack { after, reply } => Deed::CallBack {
                    after: after + time,
                    reply,
                },
                fault @ Deed::Fault { .. } => fault,
            },
        }
    }
}
