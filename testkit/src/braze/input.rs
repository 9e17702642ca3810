//! The parts of a `/users/track` request, as a test names them.

/// One of the arrays of `/users/track`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InputArray {
    /// `attributes`
    Attributes,
    /// `events`
    Events,
    /// `purchases`
    Purchases,
}

impl InputArray {
    pub(super) const ALL: [Self; 3] = [Self::Attributes, Self::Events, Self::Purchases];

    /// The key in the request, and `input_array` in the answer.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Attributes => "attributes",
            Self::Events => "events",
            Self::Purchases => "purchases",
        }
    }
}

/// An object that a test wants refused, whatever it holds.
#[derive(Debug, Clone)]
pub struct Rejection {
    /// The array it is in.
    pub array: InputArray,
    /// Its place in that array, from 0.
    pub index: usize,
    /// The `type` to answer, such as `EXTERNAL_USER_ID_TOO_LARGE`.
    pub kind: String,
}
