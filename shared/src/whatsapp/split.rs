//! Long texts in pieces that WhatsApp takes.

use unicode_segmentation::UnicodeSegmentation;

/// The longest text message. Meta says 4,096 "characters" without saying of which kind; UTF-16 units are the
/// most of all ways to count, so a piece that keeps to them is never too long.
pub const TEXT_LIMIT: usize = 4_096;

/// The longest parameter of a template's body.
pub const TEMPLATE_LIMIT: usize = 1_024;

/// Splits `text` into pieces of at most `limit` UTF-16 units (at least 2): between paragraphs if that leaves
/// a piece of fair length, else between lines, sentences, words, and only then between characters as people
/// see them. Blanks at the borders are left out, nothing else is; no piece is blank.
#[must_use]
pub fn split(text: &str, limit: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let window = longest_prefix(rest, limit);
        let at = if window.len() == rest.len() {
            window.len()
        } else {
            border(window, rest)
        };
        let (piece, behind) = rest.split_at(at);
        let piece = piece.trim_end();
        if !piece.is_empty() {
            pieces.push(piece.to_owned());
        }
        rest = behind.trim_start();
    }
    pieces
}

/// Puts every run of blanks, line breaks and tabs down to one blank: Braze does not send a template whose
/// parameter has a line break, a tab or more than four blanks in a row.
#[must_use]
pub fn flatten(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The longest prefix within `limit` that does not cut through a character as people see it, if there is one;
/// else through one, since a character can be longer than any message.
fn longest_prefix(text: &str, limit: usize) -> &str {
    let fitting = |parts: &mut dyn Iterator<Item = (usize, &str)>| {
        let mut units = 0;
        let mut end = 0;
        for (at, part) in parts {
            units += part.encode_utf16().count();
            if units > limit {
                break;
            }
            end = at + part.len();
        }
        end
    };
    let whole = fitting(&mut text.grapheme_indices(true));
    let end = if whole > 0 {
        whole
    } else {
        fitting(
            &mut text
                .char_indices()
                .filter_map(|(at, char)| Some((at, text.get(at..at + char.len_utf8())?))),
        )
    };
    // Never nothing, or splitting would not come to an end.
    let one = text.chars().next().map_or(0, char::len_utf8);
    text.get(..end.max(one)).unwrap_or(text)
}

/// Where to cut: the last border of the best kind that leaves half of `window` or more. The blanks around a
/// border may lie behind the window; they are left out anyway.
fn border(window: &str, rest: &str) -> usize {
    let limit = window.len();
    // Borders can only be told from what follows them.
    let seen = behind(rest, limit, 32);
    let fits = |at: usize| {
        at > 0
            && at >= limit / 2
            && seen
                .get(..at)
                .is_some_and(|piece| piece.trim_end().len() <= limit)
    };
    let last = |borders: &mut dyn Iterator<Item = usize>| borders.filter(|at| fits(*at)).last();
    last(&mut seen.match_indices("\n\n").map(|(at, _)| at))
        .or_else(|| last(&mut seen.match_indices('\n').map(|(at, _)| at)))
        .or_else(|| last(&mut seen.split_sentence_bound_indices().map(|(at, _)| at)))
        .or_else(|| last(&mut seen.match_indices(char::is_whitespace).map(|(at, _)| at)))
        .or_else(|| last(&mut seen.split_word_bound_indices().map(|(at, _)| at)))
        .unwrap_or(limit)
}

/// `text` up to `more` characters behind `at`.
fn behind(text: &str, at: usize, more: usize) -> &str {
    let rest = text.get(at..).unwrap_or_default();
    let end = rest.char_indices().nth(more).map_or(rest.len(), |(end, _)| end);
    text.get(..at + end).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn units(text: &str) -> usize {
        text.encode_utf16().count()
    }

    #[test]
    fn short_texts_stay_whole() {
        assert_eq!(split("Hi <b>Ana</b>!\n\n ok ", 4_096), ["Hi <b>Ana</b>!\n\n ok"]);
        assert!(split(" \n", 4_096).is_empty());
        assert_eq!(split(&"x".repeat(4_096), 4_096).len(), 1);
        assert_eq!(split(&"x".repeat(4_097), 4_096).len(), 2);
    }

    #[test]
    fn the_best_border_is_taken() {
        for (text, limit, pieces) in [
            (
                "One two three.\n\nFour. Five six",
                22,
                &["One two three.", "Four. Five six"][..],
            ),
            (
                "One two three\nfour. Five six",
                20,
                &["One two three", "four. Five six"],
            ),
            (
                "One two three. Four five six seven",
                22,
                &["One two three.", "Four five six seven"],
            ),
            ("one two three four", 9, &["one two", "three", "four"]),
            ("exactly here fits", 12, &["exactly here", "fits"]),
            ("It ends here. Next one.", 13, &["It ends here.", "Next one."]),
            ("一二三四。五六七八。九", 8, &["一二三四。", "五六七八。九"]),
            ("abcdefghij", 4, &["abcd", "efgh", "ij"]),
        ] {
            assert_eq!(split(text, limit), pieces);
        }
    }

    #[test]
    fn a_border_far_from_the_end_is_left_for_a_better_filled_piece() {
        assert_eq!(
            split("Hi\n\nthis is one long sentence", 24),
            ["Hi\n\nthis is one long", "sentence"]
        );
    }

    #[test]
    fn characters_are_not_cut_through() {
        let family = "👩‍👩‍👧‍👦";
        let pieces = split(&family.repeat(5), units(family) * 2 + 3);
        assert_eq!(pieces, [family.repeat(2), family.repeat(2), family.to_owned()]);
        let stacked = format!("a{}", "\u{301}".repeat(50));
        assert!(split(&stacked, 20).iter().all(|piece| units(piece) <= 20));
        assert_eq!(split("😀😀", 3), ["😀", "😀"]);
    }

    #[test]
    fn a_template_parameter_has_single_blanks() {
        assert_eq!(flatten(" a\n\nb\t\tc      d\u{a0}e\r\n"), "a b c d e");
    }

    proptest! {
        #[test]
        fn nothing_but_blanks_gets_lost(text in "([a-z]{1,9}[.!?]?[ \n]{0,3}|\\PC|👩‍👧|\n\n){0,60}", limit in 4_usize..40) {
            let pieces = split(&text, limit);
            let dense = |text: &str| text.split_whitespace().collect::<String>();
            prop_assert_eq!(dense(&pieces.concat()), dense(&text));
            for piece in &pieces {
                prop_assert!(!piece.trim().is_empty() && units(piece) <= limit, "{:?}", piece);
            }
        }

        #[test]
        fn flattened_texts_can_go_into_a_template(text in "[a-z \n\t\u{a0}]{0,80}") {
            let flat = flatten(&text);
            prop_assert!(!flat.contains(['\n', '\t']) && !flat.contains("     "));
        }
    }
}
