//! What a workspace holds, and what its endpoints make of a request.

use serde_json::Value;

use super::campaign::{Campaigns, SentMessage};
use super::canvas::Canvases;
use super::faults;
use super::input::{InputArray, Rejection};
use super::options::{Endpoint, Options, Request};
use super::profile::Profiles;
use crate::fault::{Answer, Fault, Script};
use crate::history::{History, Refusals};

#[derive(Clone)]
pub(super) enum Step {
    Fault(Fault),
    Reject(Vec<Rejection>),
}

pub(super) struct Model {
    pub(super) options: Options,
    pub(super) profiles: Profiles,
    pub(super) campaigns: Campaigns,
    pub(super) canvases: Canvases,
    pub(super) sent: Vec<SentMessage>,
    pub(super) data_points: usize,
    pub(super) script: Script<Endpoint, Step>,
    pub(super) poison: Option<Poison>,
    pub(super) requests: History<Request>,
    pub(super) refusals: Refusals,
    pub(super) processed: u64,
}

pub(super) struct Poison {
    pub(super) text: String,
    pub(super) met: bool,
}

/// What the model made of a request.
pub(super) struct Outcome {
    pub(super) answer: Answer,
    /// Why it was refused, if no test had asked for that.
    pub(super) refused: Option<String>,
}

impl Outcome {
    pub(super) fn accepted(answer: Answer) -> Self {
        Self {
            answer,
            refused: None,
        }
    }

    pub(super) fn scripted(answer: Answer) -> Self {
        Self {
            answer,
            refused: None,
        }
    }

    pub(super) fn refused(status: u16, message: &str) -> Self {
        Self {
            answer: faults::answer(status, message),
            refused: Some(message.to_owned()),
        }
    }
}

impl Model {
    /// The message for a batch with a poisoned object in it.
    pub(super) fn poisoned(&mut self, body: &Value) -> Option<String> {
        let poison = self.poison.as_mut()?;
        let holds = InputArray::ALL
            .map(InputArray::name)
            .into_iter()
            .chain(["aliases_to_identify", "external_ids", "user_aliases", "braze_ids"])
            .filter_map(|array| body.get(array)?.as_array())
            .flatten()
            .any(|object| object.to_string().contains(&poison.text));
        poison.met |= holds;
        holds.then(|| "Bad syntax".to_owned())
    }
}
