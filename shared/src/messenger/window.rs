//! The 24-hour window: when it closes, and when Braze has to be told.

use jiff::{SignedDuration, Timestamp};

use super::settings::MessengerSettings;

/// How long after a person's act they may be written to.
const LENGTH: SignedDuration = SignedDuration::from_hours(24);

/// When the window closes that was opened at a time.
#[must_use]
pub fn closes_at(opened_at: Timestamp) -> Timestamp {
    opened_at.saturating_add(LENGTH).unwrap_or(Timestamp::MAX)
}

/// Whether a window that was last synced as `told` is worth another sync: it moved by `WINDOW_SYNC_MINUTES`, or back.
pub(super) fn moved_enough(told: Timestamp, now: Timestamp, settings: &MessengerSettings) -> bool {
    now < told || now.duration_since(told) >= step(settings)
}

fn step(settings: &MessengerSettings) -> SignedDuration {
    SignedDuration::try_from(settings.window_sync).unwrap_or(SignedDuration::MAX)
}

/// The times of acts that open the window and need no sync: they are noted by one conditional update, without a
/// decision. In milliseconds since 1970, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quiet {
    /// Nothing that is known is later.
    pub from: i64,
    /// The last such act.
    pub until: i64,
}

impl Quiet {
    /// From the last act, `from`, and the window that was synced or is queued for it. Without a window the next act needs
    /// a sync. A contact that is never synced is decided on again after a step.
    pub(super) fn of(from: Timestamp, told: Told, settings: &MessengerSettings) -> Self {
        let step = step(settings);
        let until = match told {
            Told::Nothing => from.saturating_add(step),
            Told::NoWindow => Ok(from),
            // The window of an act at that very time would be a step later than what was told.
            Told::Window(told) => told.saturating_add(step - LENGTH),
        };
        Self {
            from: from.as_millisecond(),
            until: until.unwrap_or(from).as_millisecond() - 1,
        }
    }
}

/// The window that was synced, or is queued for it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Told {
    /// Nothing is told of this contact, whatever it does.
    Nothing,
    /// That there is none.
    NoWindow,
    /// When it closes.
    Window(Timestamp),
}
