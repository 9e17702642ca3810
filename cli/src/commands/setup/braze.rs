//! What is left to click in Braze, filled in.

use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use shared::secrets::RelaySecret;

use super::tokens::Page;
use crate::output;
use crate::target::Target;

/// One thing to do in Braze.
#[derive(Debug, Serialize)]
pub(super) struct BrazeStep {
    title: String,
    #[serde(rename = "where")]
    place: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    headers: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    notes: Vec<String>,
}

const WEBHOOK: &str = "Messaging > Campaigns > Create campaign > Webhook, Compose webhook: POST, raw text";
const SEND: &str = "/messenger/send";

const THROUGH: &str = r#"{
  "user_id": "{{${user_id} | json_escape}}",
  "text": "Hi {{${first_name} | default: 'there' | json_escape}}, your order has left.",
  "dispatch_id": "{{campaign.${dispatch_id}}}",
  "campaign_id": "{{campaign.${api_id}}}"
}"#;

const WHATSAPP: &str = r#"{
  "user_id": "{{${user_id} | json_escape}}",
  "braze_id": "{{${braze_id} | json_escape}}",
  "phone_number": "{{${phone_number} | json_escape}}",
  "first_name": "{{${first_name} | json_escape}}",
  "language": "{{${language} | json_escape}}",
  "message_b64": "{{whats_app.${inbound_message_body} | base64_encode}}",
  "media_urls": "{{whats_app.${inbound_media_urls} | json_escape}}",
  "profile_name": "{{whats_app.${inbound_profile_name} | json_escape}}",
  "product_id": "{{whats_app.${inbound_product_id} | json_escape}}",
  "catalog_id": "{{whats_app.${inbound_catalog_id} | json_escape}}",
  "flow_response": "{{whats_app.${inbound_flow_response} | json_escape}}",
  "dispatch_id": "{{campaign.${dispatch_id}}}",
  "campaign_id": "{{campaign.${api_id}}}"
}"#;

fn directly(attribute: &str) -> String {
    format!(
        r#"{{
  "recipient": {{"id": "{{{{custom_attribute.${{{attribute}}}}}}}"}},
  "messaging_type": "RESPONSE",
  "message": {{"text": "Hi {{{{${{first_name}} | default: 'there' | json_escape}}}}, your order has left."}}
}}"#
    )
}

/// Every step. Tokens are named, not shown; with `reveal` those of the relay are.
pub(super) async fn steps(target: &Target, pages: &[Page], reveal: bool) -> anyhow::Result<Vec<BrazeStep>> {
    let relay: RelaySecret = target.secrets.read("relay", "RelaySecretName").await?;
    let shown = |field: &str, token: &SecretString| {
        if reveal {
            token.expose_secret().to_owned()
        } else {
            format!("<{field} of {}/relay>", target.name)
        }
    };
    let inbound = shown("inbound_token", &relay.inbound_token);
    let send = match &relay.send_token {
        Some(token) => shown("send_token", token),
        None => inbound.clone(),
    };
    let bearer = |token: &str| {
        vec![
            ("Authorization".to_owned(), format!("Bearer {token}")),
            ("Content-Type".to_owned(), "application/json".to_owned()),
        ]
    };
    let attribute = target
        .setting("MESSENGER_ID_ATTRIBUTE")
        .unwrap_or_else(|| "messenger_id".to_owned());
    let mut steps = vec![BrazeStep {
        title: "The attribute".to_owned(),
        place: "Data Settings > Custom Attributes",
        url: None,
        headers: Vec::new(),
        body: None,
        notes: vec![format!(
            "turn on analytics for `{attribute}`, and make a segment: `{attribute}` is not blank"
        )],
    }];
    if target.has_route(SEND) {
        let base = target.urls.messenger.trim_end_matches("/messenger/webhook");
        steps.push(BrazeStep {
            title: "Messenger, through the bridge".to_owned(),
            place: WEBHOOK,
            url: Some(format!("{base}{SEND}")),
            headers: bearer(&send),
            body: Some(THROUGH.to_owned()),
            notes: vec!["the bridge looks at the window and the opt-out before it sends".to_owned()],
        });
    }
    let graph = target.graph_settings()?;
    let page = pages.first().map_or("page", |page| page.id.as_str());
    steps.push(BrazeStep {
        title: "Messenger, directly".to_owned(),
        place: "Content > Webhook > Create webhook template > Braze templates > Facebook Messenger",
        url: Some(format!(
            "https://graph.facebook.com/{}/me/messages?access_token=<page_access_tokens.{page} of {}/meta>",
            graph.version, target.name
        )),
        headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
        body: Some(directly(&attribute)),
        notes: vec![format!(
            "filter: `{attribute}` is not blank, `{}` is after now, `messenger_opted_out` is not true",
            target
                .setting("WINDOW_ATTRIBUTE")
                .unwrap_or_else(|| "messenger_window_closes_at".to_owned())
        )],
    });
    steps.push(BrazeStep {
        title: "WhatsApp, inbound".to_owned(),
        place: WEBHOOK,
        url: Some(target.urls.inbound.clone()),
        headers: bearer(&inbound),
        body: Some(WHATSAPP.to_owned()),
        notes: vec![
            "schedule: Action-Based, Send a WhatsApp inbound message; re-eligibility 0 minutes; no cap"
                .to_owned(),
        ],
    });
    let property = target
        .setting("TRIGGER_PROPERTY")
        .unwrap_or_else(|| "external_system_msg_body".to_owned());
    steps.push(BrazeStep {
        title: "WhatsApp, answers".to_owned(),
        place: "Messaging > Campaigns > Create campaign > WhatsApp, Response Message",
        url: None,
        headers: Vec::new(),
        body: Some(format!("{{{{api_trigger_properties.${{{property}}}}}}}")),
        notes: vec![
            "schedule: API-Triggered; re-eligibility 0 minutes; frequency capping ignored; quiet hours off"
                .to_owned(),
            match target.setting("REPLY_CAMPAIGN_ID") {
                Some(campaign) => format!("its campaign ID is ReplyCampaignId: now `{campaign}`"),
                None => "put its campaign ID into the parameter ReplyCampaignId, and deploy".to_owned(),
            },
        ],
    });
    Ok(steps)
}

pub(super) fn print(steps: &[BrazeStep]) {
    output::line("\nLeft to do in Braze:");
    for (number, step) in steps.iter().enumerate() {
        output::line(format_args!("\n{}. {}", number + 1, step.title));
        output::line(format_args!("   {}", step.place));
        if let Some(url) = &step.url {
            output::line(format_args!("   POST {url}"));
        }
        for (name, value) in &step.headers {
            output::line(format_args!("   {name}: {value}"));
        }
        for line in step.body.iter().flat_map(|body| body.lines()) {
            output::line(format_args!("     {line}"));
        }
        for note in &step.notes {
            output::line(format_args!("   - {note}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    fn key(line: &str) -> Option<&str> {
        let (key, _) = line.trim().strip_prefix('"')?.split_once("\": \"")?;
        Some(key)
    }

    /// The keys of a template, which is no JSON before Braze has filled it in.
    fn keys(template: &str) -> BTreeSet<&str> {
        template.lines().filter_map(key).collect()
    }

    fn template_of<'a>(document: &'a str, fence: &str) -> &'a str {
        let (_, after) = document.split_once(fence).unwrap();
        after.split_once("```").unwrap().0
    }

    #[test]
    fn the_bodies_are_those_of_the_documents() {
        let mut whatsapp = keys(template_of(
            include_str!("../../../../docs/whatsapp.md"),
            "```liquid",
        ));
        // What the document advises, to be safe with every character.
        assert!(whatsapp.remove("message") && whatsapp.insert("message_b64"));
        assert_eq!(keys(super::WHATSAPP), whatsapp);
        let sends = keys(template_of(
            include_str!("../../../../docs/messenger.md"),
            "```text",
        ));
        assert_eq!(keys(super::THROUGH), sends);
    }
}
