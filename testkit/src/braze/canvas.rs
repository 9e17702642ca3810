//! API-triggered Canvases: which there are, and who entered.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::profile::Identifier;

/// An API-triggered Canvas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canvas {
    pub(super) id: String,
    pub(super) notice: Option<&'static str>,
}

impl Canvas {
    /// A live Canvas that people can enter again and again.
    #[must_use]
    pub fn live(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            notice: None,
        }
    }

    /// The Canvas while it is paused.
    #[must_use]
    pub fn paused(mut self) -> Self {
        self.notice =
            Some("The Canvas is paused. Resume the Canvas to ensure trigger requests will take effect.");
        self
    }

    /// The Canvas once it is archived.
    #[must_use]
    pub fn archived(mut self) -> Self {
        self.notice =
            Some("The Canvas is archived. Unarchive the Canvas to ensure trigger requests will take effect.");
        self
    }
}

/// A person who entered a Canvas.
#[derive(Debug, Clone, PartialEq)]
pub struct CanvasEntry {
    /// The request's `dispatch_id`.
    pub dispatch_id: String,
    /// The Canvas.
    pub canvas_id: String,
    /// The recipient as the request named it.
    pub recipient: Identifier,
    /// The profile that it is.
    pub braze_id: String,
    /// The request's context with the recipient's own on top.
    pub context: Map<String, Value>,
}

/// The Canvases that exist, and who entered.
#[derive(Default)]
pub(super) struct Canvases {
    known: Option<BTreeMap<String, Canvas>>,
    pub(super) entries: Vec<CanvasEntry>,
}

impl Canvases {
    pub(super) fn set(&mut self, canvas: Canvas) {
        self.known
            .get_or_insert_default()
            .insert(canvas.id.clone(), canvas);
    }

    /// As long as none was added, any id is a live Canvas.
    pub(super) fn find(&self, id: &str) -> Option<Canvas> {
        match &self.known {
            None => Some(Canvas::live(id)),
            Some(known) => known.get(id).cloned(),
        }
    }
}
