//! What a model may do beside talking.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use shared::whatsapp::answer::{Answer, AnswerReply};
use shared::whatsapp::settings::{RelaySettings, Tool};

use super::completion::ToolCall;

/// The tools that a model is offered: those of the settings for which there is something to choose.
#[derive(Debug)]
pub(super) struct Tools<'a> {
    offered: BTreeSet<Tool>,
    attributes: &'a [String],
    campaigns: Vec<&'a str>,
}

impl<'a> Tools<'a> {
    pub(super) fn new(settings: &'a RelaySettings) -> Self {
        let routes = settings.rules.routes.iter();
        let campaigns: Vec<&str> = routes.map(|route| route.name.as_str()).collect();
        let attributes = settings.openai_attributes.as_slice();
        let mut offered = settings.openai_tools.clone();
        offered.retain(|tool| match tool {
            Tool::HandOff => true,
            Tool::SetAttributes => !attributes.is_empty(),
            Tool::SendCampaign => !campaigns.is_empty(),
        });
        Self {
            offered,
            attributes,
            campaigns,
        }
    }

    /// As the request declares them; empty = none is offered.
    pub(super) fn declared(&self) -> Vec<Value> {
        self.offered.iter().map(|tool| self.declare(*tool)).collect()
    }

    fn declare(&self, tool: Tool) -> Value {
        let (description, properties, required) = match tool {
            Tool::HandOff => (
                "Let a person at the company take over the conversation.",
                json!({"reason": {"type": "string"}}),
                json!([]),
            ),
            Tool::SetAttributes => {
                let names = self.attributes.iter().map(|name| (name.clone(), json!({})));
                let names: Map<String, Value> = names.collect();
                (
                    "Note something about the customer in their profile.",
                    json!({"attributes": {"type": "object", "properties": names}}),
                    json!(["attributes"]),
                )
            }
            Tool::SendCampaign => (
                "Send a prepared message of this name, with a text of yours if it takes one.",
                json!({"campaign": {"type": "string", "enum": self.campaigns}, "text": {"type": "string"}}),
                json!(["campaign"]),
            ),
        };
        let parameters = json!({"type": "object", "properties": properties, "required": required});
        json!({"type": "function", "function": {
            "name": <&str>::from(tool), "description": description, "parameters": parameters,
        }})
    }

    /// Does what the model asks for, as far as it may, and says what came of it, in words for the model.
    pub(super) fn call(&self, call: &ToolCall, answer: &mut Answer) -> String {
        let tool = call.name.parse().ok();
        let Some(tool) = tool.filter(|tool| self.offered.contains(tool)) else {
            return "error: there is no such tool".to_owned();
        };
        match tool {
            Tool::HandOff => {
                answer.handoff = Some(true);
                "ok".to_owned()
            }
            Tool::SetAttributes => self.set_attributes(&call.arguments, answer),
            Tool::SendCampaign => self.send_campaign(&call.arguments, answer),
        }
    }

    fn set_attributes(&self, arguments: &Value, answer: &mut Answer) -> String {
        // Some models leave the wrapping out.
        let given = arguments.get("attributes").unwrap_or(arguments).as_object();
        let mut refused = Vec::new();
        for (name, value) in given.into_iter().flatten() {
            if self.attributes.contains(name) {
                answer.attributes.insert(name.clone(), value.clone());
            } else {
                refused.push(name.as_str());
            }
        }
        if refused.is_empty() {
            "ok".to_owned()
        } else {
            format!("error: not allowed: {}", refused.join(", "))
        }
    }

    fn send_campaign(&self, arguments: &Value, answer: &mut Answer) -> String {
        let text = |name: &str| arguments.get(name).and_then(Value::as_str);
        let Some(campaign) = text("campaign").filter(|name| self.campaigns.contains(name)) else {
            return format!("error: campaigns are {}", self.campaigns.join(", "));
        };
        answer.replies.push(AnswerReply {
            text: text("text")
                .filter(|text| !text.trim().is_empty())
                .map(str::to_owned),
            campaign: Some(campaign.to_owned()),
            ..AnswerReply::default()
        });
        "ok".to_owned()
    }
}
