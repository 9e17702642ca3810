//! The full template: where each of its values begins and ends in a broken body.

use std::ops::Range;

use super::super::json_string::{BLANKS, expect, proper_end, skip_blanks};

/// A key of the template.
pub(super) struct Field {
    pub(super) key: &'static str,
    /// Written by a person or of unknown form, so it may hold anything, quotes included.
    free: bool,
}

const fn proper(key: &'static str) -> Field {
    Field { key, free: false }
}

const fn free(key: &'static str) -> Field {
    Field { key, free: true }
}

/// The full template, in its order.
pub(super) const FULL: [Field; 13] = [
    proper("user_id"),
    proper("braze_id"),
    proper("phone_number"),
    free("first_name"),
    proper("language"),
    free("message"),
    free("media_urls"),
    free("profile_name"),
    proper("product_id"),
    proper("catalog_id"),
    free("flow_response"),
    proper("dispatch_id"),
    proper("campaign_id"),
];

pub(super) const ENCODED_MESSAGE: Field = proper("message_b64");

/// The full template with `message_b64` in the place of `message`.
pub(super) fn encoded() -> Vec<&'static Field> {
    FULL.iter()
        .map(|field| {
            if field.key == "message" {
                &ENCODED_MESSAGE
            } else {
                field
            }
        })
        .collect()
}

/// The full template with `message_b64` besides: behind the message, in front of it, or at the end.
pub(super) fn with_both() -> [Vec<&'static Field>; 3] {
    let message = FULL
        .iter()
        .position(|field| field.key == "message")
        .unwrap_or_default();
    [message + 1, message, FULL.len()].map(|at| {
        let mut template: Vec<&Field> = FULL.iter().collect();
        template.insert(at, &ENCODED_MESSAGE);
        template
    })
}

pub(super) enum Matches {
    None,
    One(Vec<Range<usize>>),
    Many,
}

/// A place where one value can end and the value of the next key begin: `" , "key" : "`.
pub(super) struct Anchor {
    /// Where the quote is that closes the value before.
    pub(super) before: usize,
    /// Where the value begins, behind its quote.
    start: usize,
    /// In how many ways the template can go on from here to the end; 2 stands for more.
    ways: u8,
}

/// Counts the ways in which `template` can have made `body`, from its end to its beginning.
pub(super) fn match_template(body: &str, template: &[&Field], end: usize) -> Matches {
    let mut following: Vec<Vec<Anchor>> = Vec::new();
    for (index, field) in template.iter().enumerate().rev() {
        let mut anchors = if index == 0 {
            first_anchor(body, field.key).into_iter().collect()
        } else {
            anchors(body, field.key)
        };
        let next = following.last().map(Vec::as_slice);
        // For values that may end anywhere: the ways from each anchor of the next key on, summed up.
        let mut from_here_on: Vec<u8> = vec![0];
        for anchor in next.unwrap_or_default().iter().rev() {
            from_here_on.push(at_most_two(
                from_here_on.last().copied().unwrap_or(0),
                anchor.ways,
            ));
        }
        from_here_on.reverse();
        for anchor in &mut anchors {
            anchor.ways = match next {
                None => u8::from(ends_at(body, field, anchor.start, end)),
                Some(next) if field.free => {
                    let first = next.partition_point(|next| next.before < anchor.start);
                    from_here_on.get(first).copied().unwrap_or(0)
                }
                Some(next) => proper_end(body, anchor.start)
                    .and_then(|close| next.binary_search_by_key(&close, |next| next.before).ok())
                    .and_then(|at| next.get(at))
                    .map_or(0, |next| next.ways),
            };
        }
        following.push(anchors);
    }
    following.reverse();
    match following
        .first()
        .and_then(|first| first.first())
        .map_or(0, |first| first.ways)
    {
        0 => Matches::None,
        1 => walk(body, template, &following, end).map_or(Matches::None, Matches::One),
        _ => Matches::Many,
    }
}

fn at_most_two(left: u8, right: u8) -> u8 {
    left.saturating_add(right).min(2)
}

/// Whether the last value, which begins at `start`, can end at `end`.
fn ends_at(body: &str, field: &Field, start: usize, end: usize) -> bool {
    if field.free {
        start <= end
    } else {
        proper_end(body, start) == Some(end)
    }
}

/// Follows the only way and gives where each value is.
fn walk(body: &str, template: &[&Field], anchors: &[Vec<Anchor>], end: usize) -> Option<Vec<Range<usize>>> {
    let mut spans = Vec::with_capacity(template.len());
    let mut start = anchors.first()?.first()?.start;
    for (field, next) in template.iter().zip(anchors.iter().skip(1)) {
        let close = if field.free {
            None
        } else {
            Some(proper_end(body, start)?)
        };
        let next = next.iter().find(|next| {
            next.ways > 0 && next.before >= start && close.is_none_or(|close| close == next.before)
        })?;
        spans.push(start..next.before);
        start = next.start;
    }
    spans.push(start..end);
    Some(spans)
}

fn first_anchor(body: &str, key: &str) -> Option<Anchor> {
    let at = skip_blanks(body, 0);
    let at = skip_blanks(body, expect(body, at, "{")?);
    let at = expect(body, at, &format!("\"{key}\""))?;
    Some(Anchor {
        before: 0,
        start: value_start(body, at)?,
        ways: 0,
    })
}

pub(super) fn anchors(body: &str, key: &str) -> Vec<Anchor> {
    let quoted = format!("\"{key}\"");
    body.match_indices(&quoted)
        .filter_map(|(at, _)| {
            let start = value_start(body, at + quoted.len())?;
            let separated = body.get(..at)?.trim_end_matches(BLANKS).strip_suffix(',')?;
            let before = separated.trim_end_matches(BLANKS).strip_suffix('"')?.len();
            Some(Anchor {
                before,
                start,
                ways: 0,
            })
        })
        .collect()
}

/// Behind the quote of `: "`.
pub(super) fn value_start(body: &str, at: usize) -> Option<usize> {
    let at = expect(body, skip_blanks(body, at), ":")?;
    expect(body, skip_blanks(body, at), "\"")
}
