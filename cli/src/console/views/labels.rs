//! What requests and names are called on the pages.

use crate::console::flow::{Origin, Standing};
use crate::console::page::{Icon, Tone};
use crate::said::cut;

/// Characters of a text in a line.
const SAID: usize = 80;

/// A name of the code in plain words.
pub(crate) fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// Who asked, in words and a picture.
pub(crate) fn origin(origin: Origin) -> (Icon, &'static str) {
    match origin {
        Origin::Messenger => (Icon::Chat, "Messenger"),
        Origin::Instagram => (Icon::Chat, "Instagram"),
        Origin::Fbe => (Icon::Shop, "Install"),
        Origin::Whatsapp => (Icon::Chat, "WhatsApp"),
        Origin::Send => (Icon::Send, "Braze sends"),
        Origin::Reply => (Icon::Send, "Late reply"),
        Origin::Handshake => (Icon::Lock, "Handshake"),
        Origin::Partner => (Icon::Box, "Partner reads"),
        Origin::Schedule => (Icon::Clock, "By itself"),
        Origin::Other => (Icon::Dots, "Other"),
    }
}

/// How a request stands, in words, a picture and a colour.
pub(crate) fn standing(standing: Standing) -> (Tone, Icon, &'static str) {
    match standing {
        Standing::Working => (Tone::Busy, Icon::Dots, "under way"),
        Standing::Done => (Tone::Good, Icon::Check, "done"),
        Standing::Nothing => (Tone::Quiet, Icon::Dash, "nothing to do"),
        Standing::Later => (Tone::Quiet, Icon::Clock, "later"),
        Standing::Failing => (Tone::Warn, Icon::Alert, "failing"),
        Standing::Kept => (Tone::Warn, Icon::Box, "not understood"),
        Standing::Refused => (Tone::Bad, Icon::Lock, "refused"),
        Standing::Failed => (Tone::Bad, Icon::Cross, "failed"),
    }
}

/// A text, cut to fit a line.
pub(crate) fn short(text: &str) -> String {
    cut(text, SAID).replace(['\n', '\r'], " ")
}
