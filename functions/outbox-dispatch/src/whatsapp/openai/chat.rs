//! The calls that one answer may take: one, or another without what the server refuses, or another with what came of
//! the tools.

use jiff::Timestamp;

use shared::telemetry;
use shared::whatsapp::answer::{Answer, AnswerReply, fault};
use shared::whatsapp::conversation::Turn;
use shared::whatsapp::settings::RelaySettings;

use super::completion::{self, Completion};
use super::refused::{About, Refused};
use super::request::{ChatRequest, With};
use super::tools::Tools;
use crate::whatsapp::external_system::{ExternalSystemError, Received};

/// Calls for one answer at most: each part that can be left out may be refused by itself, and one for the tools.
const MAX_CALLS: u32 = 4;

/// A chat with a model about some messages.
pub(in crate::whatsapp) struct Chat<'a> {
    settings: &'a RelaySettings,
    messages: &'a [Turn],
    history: &'a [Turn],
    tools: Tools<'a>,
    with: With,
    calls: u32,
    /// What the tools have done so far.
    answer: Answer,
    /// What the model called, and what came of it.
    called: Option<(serde_json::Value, Vec<(String, String)>)>,
}

/// What is next.
#[derive(Debug, PartialEq)]
pub(in crate::whatsapp) enum Next {
    /// That is the answer.
    Answer(Answer),
    /// Post [`Chat::request`].
    Ask,
}

impl<'a> Chat<'a> {
    pub(in crate::whatsapp) fn new(
        settings: &'a RelaySettings,
        messages: &'a [Turn],
        history: &'a [Turn],
    ) -> Self {
        let tools = Tools::new(settings);
        Self {
            with: With {
                tools: !tools.declared().is_empty(),
                images: settings.openai_images,
                history: !history.is_empty(),
            },
            settings,
            messages,
            history,
            tools,
            calls: 0,
            answer: Answer::default(),
            called: None,
        }
    }

    /// What is to be posted now.
    pub(in crate::whatsapp) fn request(&self) -> ChatRequest<'_> {
        let settings = self.settings;
        let model = settings.openai_model.as_deref().unwrap_or_default();
        let prompt = settings.openai_system_prompt.as_deref().unwrap_or_default();
        let tools = self.tools.declared();
        let mut request = ChatRequest::new(model, prompt, self.messages, self.history, tools, self.with);
        if let Some((message, results)) = &self.called {
            request.add_results(message.clone(), results.clone());
        }
        request
    }

    /// What follows from what was received.
    pub(in crate::whatsapp) fn next(
        &mut self,
        received: Result<Received, ExternalSystemError>,
        now: Timestamp,
    ) -> Result<Next, ExternalSystemError> {
        self.calls += 1;
        match received.map(|received| completion::read(&received, now)) {
            Ok(Ok(completion)) => self.take(completion),
            Ok(Err(refused)) => self.leave_out(refused),
            Err(error) => Err(error),
        }
    }

    fn take(&mut self, completion: Completion) -> Result<Next, ExternalSystemError> {
        let text = completion.text.map(|text| Answer::of(text.0).replies);
        let mut replies: Vec<AnswerReply> = text.into_iter().flatten().collect();
        let is_called_again = self.called.is_some();
        let mut results = Vec::new();
        for call in completion.calls {
            let result = if self.with.tools {
                self.tools.call(&call, &mut self.answer)
            } else {
                "error: there are no tools".to_owned()
            };
            results.push((call.id, result));
        }
        // What the model says comes before what it has sent.
        replies.append(&mut self.answer.replies);
        self.answer.replies = replies;
        if !self.answer.replies.is_empty() || self.answer.handoff.is_some() {
            return Ok(Next::Answer(std::mem::take(&mut self.answer)));
        }
        if is_called_again || results.is_empty() || self.calls >= MAX_CALLS {
            let problem = "is missing, and no tool has said anything";
            return Err(ExternalSystemError::Malformed(fault(
                "choices[0].message.content",
                problem,
            )));
        }
        self.called = Some((completion.message.0, results));
        Ok(Next::Ask)
    }

    /// Asks again without what the server refuses; once it does not say what that is, without all that can be left out.
    fn leave_out(&mut self, refused: Refused) -> Result<Next, ExternalSystemError> {
        let Some(about) = refused.about.filter(|_| self.calls < MAX_CALLS) else {
            return Err(refused.error);
        };
        let mut less = self.with;
        match about {
            About::Tools if less.tools => less.tools = false,
            About::Images if less.images => less.images = false,
            About::History if less.history => less.history = false,
            // An address or model that does not exist is no question of form.
            _ if matches!(refused.error, ExternalSystemError::Configuration { .. }) && !less.tools => {}
            _ => less = With::default(),
        }
        if less == self.with {
            return Err(refused.error);
        }
        metrics::counter!(telemetry::REQUESTS_REDUCED).increment(1);
        tracing::warn!(
            reason = %refused.error,
            tools = less.tools,
            images = less.images,
            history = less.history,
            "the model refuses the request and is asked once more without a part of it"
        );
        self.with = less;
        self.called = None;
        Ok(Next::Ask)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};
    use serde_json::{Value, json};

    use super::*;
    use crate::whatsapp::tests::{assistant, relay_settings, turn};

    const ROUTES: &str = r#"[{"name":"menu","reply_campaign_id":"c-menu"}]"#;

    fn settings() -> RelaySettings {
        relay_settings(&[
            ("OPENAI_TOOLS", "hand_off,set_attributes,send_campaign"),
            ("OPENAI_ATTRIBUTES", "topic,size"),
            ("OPENAI_IMAGES", "true"),
            ("RELAY_ROUTES", ROUTES),
        ])
    }

    #[expect(clippy::unnecessary_wraps, reason = "in the form of what a request gives")]
    fn received(status: u16, body: &Value) -> Result<Received, ExternalSystemError> {
        Ok(Received {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: body.to_string().into_bytes(),
        })
    }

    fn calling(content: &Value, calls: &[(&str, Value)]) -> Result<Received, ExternalSystemError> {
        let calls: Vec<Value> = calls
            .iter()
            .enumerate()
            .map(|(at, (name, arguments))| {
                json!({"id": format!("call{at}"), "type": "function",
                    "function": {"name": name, "arguments": arguments.to_string()}})
            })
            .collect();
        received(
            200,
            &json!({"choices": [{"message": {"role": "assistant", "content": content, "tool_calls": calls}}]}),
        )
    }

    fn answer(next: Result<Next, ExternalSystemError>) -> Answer {
        match next.unwrap() {
            Next::Answer(answer) => answer,
            Next::Ask => panic!("it is asked again"),
        }
    }

    #[test]
    fn only_what_can_be_chosen_is_offered() {
        let names = |pairs: &[(&str, &str)]| {
            let settings = relay_settings(pairs);
            let tools = Tools::new(&settings).declared();
            let names = tools
                .iter()
                .map(|tool| tool["function"]["name"].as_str().unwrap().to_owned());
            names.collect::<Vec<_>>()
        };
        assert_eq!(names(&[]), ["hand_off"]);
        assert_eq!(
            names(&[("OPENAI_TOOLS", "set_attributes,send_campaign")]),
            [""; 0]
        );
        let messages = [turn("hi")];
        let plain = relay_settings(&[("OPENAI_TOOLS", "")]);
        assert!(
            json!(Chat::new(&plain, &messages, &[]).request())
                .get("tools")
                .is_none()
        );
        let all = settings();
        let request = json!(Chat::new(&all, &messages, &[]).request());
        assert_eq!(
            request["tools"][2]["function"]["parameters"]["properties"]["campaign"]["enum"],
            json!(["menu"])
        );
    }

    #[test]
    fn text_beside_calls_is_sent_first() {
        let (settings, messages) = (settings(), [turn("hi")]);
        let mut chat = Chat::new(&settings, &messages, &[]);
        let calls = [
            ("send_campaign", json!({"campaign": "menu", "text": "Sizes"})),
            (
                "set_attributes",
                json!({"attributes": {"topic": "shoes", "email": "a@b.c"}}),
            ),
        ];
        let answer = answer(chat.next(calling(&json!("Have a look."), &calls), Timestamp::UNIX_EPOCH));
        let texts: Vec<_> = answer
            .replies
            .iter()
            .map(|reply| reply.text.as_deref().unwrap())
            .collect();
        assert_eq!(texts, ["Have a look.", "Sizes"]);
        assert_eq!(answer.replies[1].campaign.as_deref(), Some("menu"));
        assert_eq!(Value::from(answer.attributes), json!({"topic": "shoes"}));
    }

    #[test]
    fn a_hand_off_needs_no_words() {
        let (settings, messages) = (settings(), [turn("hi")]);
        let mut chat = Chat::new(&settings, &messages, &[]);
        let calls = [("hand_off", json!({"reason": "angry"}))];
        let answer = answer(chat.next(calling(&Value::Null, &calls), Timestamp::UNIX_EPOCH));
        assert_eq!((answer.handoff, answer.replies.len()), (Some(true), 0));
    }

    #[test]
    fn tools_that_leave_nothing_to_say_are_told_of_once() {
        let (settings, messages) = (settings(), [turn("I wear L")]);
        let mut chat = Chat::new(&settings, &messages, &[]);
        let calls = [
            ("set_attributes", json!({"attributes": {"size": "L"}})),
            ("send_campaign", json!({"campaign": "9f-foreign"})),
        ];
        assert_eq!(
            chat.next(calling(&Value::Null, &calls), Timestamp::UNIX_EPOCH),
            Ok(Next::Ask)
        );
        let request = json!(chat.request());
        let asked = request["messages"].as_array().unwrap();
        assert_eq!(asked[2]["tool_calls"][0]["id"], "call0");
        assert_eq!(
            asked[3],
            json!({"role": "tool", "tool_call_id": "call0", "content": "ok"})
        );
        assert_eq!(asked[4]["content"], "error: campaigns are menu");
        let said = json!({"choices": [{"message": {"content": "Noted."}}]});
        let answer = answer(chat.next(received(200, &said), Timestamp::UNIX_EPOCH));
        assert_eq!(answer.replies[0].text.as_deref(), Some("Noted."));
        assert_eq!(answer.attributes["size"], "L");

        let mut silent = Chat::new(&settings, &messages, &[]);
        assert_eq!(
            silent.next(calling(&Value::Null, &calls), Timestamp::UNIX_EPOCH),
            Ok(Next::Ask)
        );
        let again = silent.next(calling(&Value::Null, &calls), Timestamp::UNIX_EPOCH);
        assert!(
            matches!(again, Err(ExternalSystemError::Malformed(_))),
            "{again:?}"
        );
    }

    #[test]
    fn what_the_server_refuses_is_left_out() {
        let settings = settings();
        let mut photo = turn("look");
        photo.content.media_urls = vec!["https://media/1".to_owned()];
        let (messages, history) = ([photo], [turn("hello"), assistant("Hi!")]);
        let mut chat = Chat::new(&settings, &messages, &history);
        let refusal = |status, message: &str| received(status, &json!({"error": {"message": message}}));
        let parts = |chat: &Chat<'_>| {
            let request = json!(chat.request());
            let messages = request["messages"].as_array().unwrap();
            let last = messages.last().unwrap();
            (
                request.get("tools").is_some(),
                last["content"].is_array(),
                messages.len() > 2,
            )
        };
        assert_eq!(parts(&chat), (true, true, true));
        for (status, message, left) in [
            (
                404,
                "No endpoints found that support tool use",
                (false, true, true),
            ),
            (400, "image_url is not supported", (false, false, true)),
            (
                400,
                "This model's maximum context length is 4096",
                (false, false, false),
            ),
        ] {
            assert_eq!(
                chat.next(refusal(status, message), Timestamp::UNIX_EPOCH),
                Ok(Next::Ask)
            );
            assert_eq!(parts(&chat), left);
        }
        let end = chat.next(refusal(400, "no"), Timestamp::UNIX_EPOCH);
        assert!(
            matches!(end, Err(ExternalSystemError::Rejected { .. })),
            "{end:?}"
        );

        let mut unsaid = Chat::new(&settings, &messages, &history);
        assert_eq!(
            unsaid.next(refusal(422, "no"), Timestamp::UNIX_EPOCH),
            Ok(Next::Ask)
        );
        assert_eq!(parts(&unsaid), (false, false, false));
        // Waiting helps here, not asking for less.
        let mut busy = Chat::new(&settings, &messages, &history);
        assert!(busy.next(refusal(503, "no"), Timestamp::UNIX_EPOCH).is_err());
    }

    #[test]
    fn a_call_that_was_not_offered_is_no_answer() {
        let (settings, messages) = (relay_settings(&[("OPENAI_TOOLS", "")]), [turn("hi")]);
        let mut chat = Chat::new(&settings, &messages, &[]);
        let calls = [("hand_off", json!({}))];
        assert_eq!(
            chat.next(calling(&Value::Null, &calls), Timestamp::UNIX_EPOCH),
            Ok(Next::Ask)
        );
        let again = chat.next(calling(&Value::Null, &calls), Timestamp::UNIX_EPOCH);
        assert!(
            matches!(again, Err(ExternalSystemError::Malformed(_))),
            "{again:?}"
        );
    }
}
