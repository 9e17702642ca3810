//! Meta's errors to a message, sorted by what to do.
//!
//! Only code and subcode count, since texts are translated; a subcode of Messenger's or Instagram's own decides alone,
//! for some stand in Meta's table where the code does.
//! (<https://developers.facebook.com/docs/messenger-platform/error-codes>)

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was sent, although an error came back. Doing it again would do it twice.
    Sent,
    /// The window is closed.
    WindowClosed,
    /// The person cannot be reached until they act again.
    Unreachable,
    /// The person wants no more of this topic; other messages may still be sent.
    TopicStopped,
    /// Another app has the thread.
    OtherApp,
    /// Meta's own flow runs in the thread: minutes.
    MetaFlow,
    /// The token is dead.
    TokenInvalid,
    /// A permission, review, role or setting at Meta is missing.
    Configuration,
    /// Meta has restricted the page: all of its messages pause.
    PageRestricted,
    /// Too many messages: all of the page pause.
    RateLimited,
    /// It may pass.
    Transient,
    /// The attachment could not be fetched: worth one more try.
    Attachment,
    /// It will never be taken as it is.
    Malformed,
}

impl Verdict {
    /// Reads an error by its code and subcode, whether Meta calls it transient, and the HTTP status.
    #[must_use]
    pub fn of(code: Option<i64>, subcode: Option<i64>, is_transient: bool, status: u16) -> Self {
        let unknown = if is_transient || status == 408 || status == 429 || status >= 500 {
            Self::Transient
        } else {
            Self::Malformed
        };
        let by_subcode = subcode.and_then(|subcode| Self::of_subcode(code, subcode));
        by_subcode
            .or_else(|| Self::of_subcode(None, code?))
            .or_else(|| Self::of_code(code?, subcode))
            .unwrap_or(unknown)
    }

    fn of_subcode(code: Option<i64>, subcode: i64) -> Option<Self> {
        Some(match (code, subcode) {
            (_, 1_357_046) => Self::Sent,
            (_, 2_018_278 | 2_018_065 | 2_534_022) => Self::WindowClosed,
            (_, 2_018_108 | 1_545_041 | 2_018_001 | 1_893_047 | 2_534_014) => Self::Unreachable,
            (_, 1_893_015) => Self::TopicStopped,
            (_, 2_018_300 | 2_534_037 | 2_018_171) => Self::OtherApp,
            (_, 2_018_321) => Self::MetaFlow,
            (_, 2_534_077) => Self::TokenInvalid,
            (_, 2_018_028 | 2_018_027 | 2_534_013 | 2_534_041 | 2_534_029 | 2_018_344 | 2_018_164)
            | (Some(1), 99)
            | (Some(100), 33) => Self::Configuration,
            (_, 1_893_063 | 1_404_170 | 2_018_338 | 2_018_336 | 2_534_122 | 2_207_050) => {
                Self::PageRestricted
            }
            (_, 2_534_040 | 2_018_024) => Self::RateLimited,
            (_, 2_018_008 | 2_018_294) => Self::Attachment,
            (
                _,
                2_018_034 | 2_018_014 | 2_534_015 | 1_893_061 | 1_893_043 | 2_018_416 | 2_018_320 | 2_018_328
                | 2_534_025 | 2_018_047 | 2_018_074 | 2_018_109 | 2_018_352 | 2_018_354 | 1_893_016,
            ) => Self::Malformed,
            _ => return None,
        })
    }

    fn of_code(code: i64, subcode: Option<i64>) -> Option<Self> {
        Some(match (code, subcode) {
            (551, _) => Self::Unreachable,
            (190 | 102 | 458, _) => Self::TokenInvalid,
            (3 | 10 | 200..=299 | 36_103, _) => Self::Configuration,
            (368 | 2022, _) => Self::PageRestricted,
            (4 | 17 | 32 | 613 | 1200 | 80_000..=80_014, _) => Self::RateLimited,
            (1 | 2, None) => Self::Transient,
            (100 | 10_303 | 9_000_001, _) => Self::Malformed,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(1, Some(1_357_046), Verdict::Sent)]
    #[case(10, Some(2_018_278), Verdict::WindowClosed)]
    #[case(10, Some(2_018_065), Verdict::WindowClosed)]
    #[case(10, Some(2_534_022), Verdict::WindowClosed)]
    #[case(551, None, Verdict::Unreachable)]
    #[case(551, Some(1_545_041), Verdict::Unreachable)]
    #[case(200, Some(1_545_041), Verdict::Unreachable)]
    #[case(10, Some(2_018_108), Verdict::Unreachable)]
    #[case(100, Some(2_018_001), Verdict::Unreachable)]
    #[case(10, Some(1_893_047), Verdict::Unreachable)]
    #[case(100, Some(2_534_014), Verdict::Unreachable)]
    #[case(10, Some(1_893_015), Verdict::TopicStopped)]
    #[case(10, Some(2_018_300), Verdict::OtherApp)]
    #[case(2_018_300, None, Verdict::OtherApp)]
    #[case(100, Some(2_534_037), Verdict::OtherApp)]
    #[case(2_018_321, None, Verdict::MetaFlow)]
    #[case(190, Some(463), Verdict::TokenInvalid)]
    #[case(102, None, Verdict::TokenInvalid)]
    #[case(10, Some(2_534_077), Verdict::TokenInvalid)]
    #[case(10, None, Verdict::Configuration)]
    #[case(200, None, Verdict::Configuration)]
    #[case(230, None, Verdict::Configuration)]
    #[case(100, Some(33), Verdict::Configuration)]
    #[case(1, Some(99), Verdict::Configuration)]
    #[case(2, Some(2_018_344), Verdict::Configuration)]
    #[case(10, Some(1_893_063), Verdict::PageRestricted)]
    #[case(368, None, Verdict::PageRestricted)]
    #[case(613, Some(2_018_338), Verdict::PageRestricted)]
    #[case(4, None, Verdict::RateLimited)]
    #[case(613, None, Verdict::RateLimited)]
    #[case(613, Some(2_534_040), Verdict::RateLimited)]
    #[case(1200, Some(2_018_024), Verdict::RateLimited)]
    #[case(1, None, Verdict::Transient)]
    #[case(2, None, Verdict::Transient)]
    #[case(100, Some(2_018_008), Verdict::Attachment)]
    #[case(100, None, Verdict::Malformed)]
    #[case(100, Some(1_893_061), Verdict::Malformed)]
    #[case(100, Some(2_018_034), Verdict::Malformed)]
    #[case(613, Some(1_893_016), Verdict::Malformed)]
    fn each_row_of_metas_table_has_its_verdict(
        #[case] code: i64,
        #[case] subcode: Option<i64>,
        #[case] verdict: Verdict,
    ) {
        assert_eq!(Verdict::of(Some(code), subcode, false, 400), verdict);
    }

    #[test]
    fn what_is_not_known_goes_by_its_status() {
        assert_eq!(Verdict::of(None, None, false, 502), Verdict::Transient);
        assert_eq!(Verdict::of(Some(777), None, true, 400), Verdict::Transient);
        assert_eq!(Verdict::of(Some(777), None, false, 400), Verdict::Malformed);
    }
}
