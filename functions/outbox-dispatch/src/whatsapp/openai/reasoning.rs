//! What a model thinks aloud before it answers, where the server leaves it in the text.

/// Pairs of tags around it, in the spellings of the models that write them. Compared without regard to case.
const TAGS: [(&str, &str); 8] = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<reflection>", "</reflection>"),
    ("[think]", "[/think]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel>thought", "<channel|>"),
];

/// How gpt-oss begins its answer, behind what it thought in another channel.
const FINAL: &str = "<|channel|>final<|message|>";

/// The text without reasoning that leads it; empty if there is nothing else, since it was cut off. Reasoning that does
/// not lead stays: a sentence may be about the tag.
pub(super) fn without_leading(text: &str) -> &str {
    let mut rest = text.trim();
    if starts_with(rest, "<|channel|>") || starts_with(rest, "<|start|>") {
        let Some((at, end)) = find(rest, FINAL) else {
            return "";
        };
        debug_assert!(at <= end, "a match ends behind its start");
        rest = rest.get(end..).unwrap_or_default();
        return rest.split("<|").next().unwrap_or_default().trim();
    }
    while let Some((open, close)) = TAGS.iter().find(|(open, _)| starts_with(rest, open)) {
        let inside = rest.get(open.len()..).unwrap_or_default();
        let Some((_, end)) = find(inside, close) else {
            return "";
        };
        rest = inside.get(end..).unwrap_or_default().trim();
    }
    // The opening tag was a part of the prompt: the closing one stands alone on its line.
    for (open, close) in TAGS {
        if let Some((at, end)) = find(rest, close)
            && find(rest, open).is_none()
            && stands_alone(rest, at, end)
        {
            return rest.get(end..).unwrap_or_default().trim();
        }
    }
    rest
}

fn stands_alone(text: &str, at: usize, end: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    let behind = text.get(end..).unwrap_or_default();
    let begins = before.rsplit('\n').next().unwrap_or_default();
    let ends = behind.split('\n').next().unwrap_or_default();
    begins.trim().is_empty() && ends.trim().is_empty()
}

fn starts_with(text: &str, tag: &str) -> bool {
    text.get(..tag.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(tag))
}

/// Where `tag` is first found: its start and its end.
fn find(text: &str, tag: &str) -> Option<(usize, usize)> {
    let at = text
        .char_indices()
        .map(|(at, _)| at)
        .find(|at| text.get(*at..).is_some_and(|rest| starts_with(rest, tag)))?;
    Some((at, at + tag.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_is_removed() {
        for text in [
            "<think>The person wants…</think>Hi!",
            " \n<think>\nline\n</think>\n\nHi!",
            "<THINK>x</Think>Hi!",
            "<thinking>x</thinking> Hi!",
            "<reasoning>x</reasoning>Hi!",
            "[THINK]x[/THINK]Hi!",
            "◁think▷x◁/think▷Hi!",
            "<|channel>thought\nx<channel|>Hi!",
            "<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>final<|message|>Hi!<|return|>",
            "<think>a</think><think>b</think>Hi!",
            "The person wants this.\n</think>\n\nHi!",
        ] {
            assert_eq!(without_leading(text), "Hi!", "{text}");
        }
    }

    #[test]
    fn what_is_cut_off_is_no_answer() {
        for text in [
            "<think>The person",
            "<think>x</think>",
            "<think>a</think><think>b",
            "<|channel|>analysis<|message|>x",
        ] {
            assert_eq!(without_leading(text), "", "{text}");
        }
    }

    #[test]
    fn what_does_not_lead_stays() {
        for text in [
            "The tag <think> starts a block.",
            "Close it with </think> like this.",
            "<thinker>Hi!</thinker>",
            "ẞ<think>x</think>",
            "",
        ] {
            assert_eq!(without_leading(text), text);
        }
    }
}
