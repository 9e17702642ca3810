use super::*;

const FIXTURE: &str = include_str!("fixture.yaml");

fn parse() -> Template {
    Template::parse(FIXTURE).unwrap()
}

#[test]
fn a_table_is_read_as_it_will_be_created() {
    let template = parse();
    let table = template.table("ItemsTable").unwrap();
    assert_eq!(table.name, "local-items");
    let key: Vec<_> = table
        .key
        .iter()
        .map(|key| (key.name.as_str(), key.key_type.as_str()))
        .collect();
    assert_eq!(key, [("subject", "HASH"), ("event_key", "RANGE")]);
    assert_eq!(table.attribute_types.get("due").unwrap(), "N");
    assert_eq!(table.indexes[0].projection.non_key_attributes, ["lane"]);
    assert_eq!(table.stream_view.as_deref(), Some("NEW_IMAGE"));
    assert_eq!(table.ttl_attribute.as_deref(), Some("expires"));
    assert_eq!(template.table("PlainTable").unwrap().name, "local-PlainTable");
    assert!(
        template.table("ProdOnlyTable").is_none(),
        "its condition does not hold"
    );
}

#[test]
fn a_functions_environment_is_resolved() {
    let template = parse();
    let environment = &template.function("Webhook").unwrap().environment;
    let pairs: Vec<_> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        pairs,
        [
            ("ITEMS_TABLE", "local-items"),
            ("LOG_LEVEL", "info"),
            ("META_SECRET_ID", "local/meta"),
            ("PREFIX", "local/fbe/${literal}"),
            ("STAGE", "dev"),
        ]
    );
}

#[test]
fn parameters_and_conditions_follow_the_deployment() {
    let parameters = [("Stage", "prod"), ("CampaignId", "c-1")];
    let deployment = Deployment {
        stack_name: "shop".to_owned(),
        parameters: parameters
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
    };
    let template = Template::parse_deployed(FIXTURE, &deployment).unwrap();
    let environment = &template.function("Webhook").unwrap().environment;
    assert_eq!(environment.get("CAMPAIGN_ID").unwrap(), "c-1");
    assert_eq!(environment.get("META_SECRET_ID").unwrap(), "shop/meta");
    assert!(template.table("ProdOnlyTable").is_some());

    let misspelt = Deployment {
        parameters: [("Stag".to_owned(), "prod".to_owned())].into(),
        ..deployment
    };
    let error = Template::parse_deployed(FIXTURE, &misspelt)
        .unwrap_err()
        .to_string();
    assert!(error.contains("no parameter Stag"), "{error}");
}

#[test]
fn event_sources_are_read() {
    let template = parse();
    let webhook = template.function("Webhook").unwrap();
    assert_eq!((webhook.memory_mib, webhook.timeout_seconds), (256, 10));
    let routes: Vec<_> = webhook
        .routes
        .iter()
        .map(|route| format!("{} {}", route.method, route.path))
        .collect();
    assert_eq!(routes, ["GET /messenger/webhook", "POST /messenger/webhook"]);

    let dispatch = template.function("Dispatch").unwrap();
    assert_eq!(dispatch.binary, "dispatch");
    let stream = &dispatch.streams[0];
    assert_eq!((stream.table.as_str(), stream.batch_size), ("ItemsTable", 25));
    assert!(stream.report_batch_item_failures && stream.bisect_batch);
    assert_eq!(stream.maximum_retry_attempts, Some(3));
    assert!(stream.filters[0].contains("INSERT"));
    assert_eq!(dispatch.schedules.len(), 1, "a disabled schedule is none");
    assert_eq!(dispatch.schedules[0].input.as_deref(), Some(r#"{"due":true}"#));
}

#[test]
fn what_cannot_be_resolved_is_an_error_that_names_it() {
    let broken = FIXTURE.replace("!Ref ItemsTable", "!Ref NoSuchTable");
    let error = format!("{:#}", Template::parse(&broken).unwrap_err());
    assert!(
        error.contains("Webhook") && error.contains("NoSuchTable"),
        "{error}"
    );
    let unknown = FIXTURE.replace("!Ref Stage\n      Events", "!Cidr [a]\n      Events");
    let error = format!("{:#}", Template::parse(&unknown).unwrap_err());
    assert!(error.contains("Fn::Cidr"), "{error}");
}

#[test]
fn a_loop_becomes_what_it_repeats() {
    let template = parse();
    let alarms = template.properties_of("AWS::CloudWatch::Alarm").unwrap();
    let ids: Vec<_> = alarms.keys().copied().collect();
    assert_eq!(
        ids,
        [
            "DispatchDurationAlarm",
            "DispatchErrorsAlarm",
            "WebhookDurationAlarm",
            "WebhookErrorsAlarm"
        ]
    );
    let expected = serde_json::json!({
        "AlarmName": "local-webhook-Errors",
        "AlarmDescription": "${Function} as it stands",
        "Threshold": "4000",
        "Dimensions": [{ "Value": "local-Webhook" }],
    });
    assert_eq!(alarms["WebhookErrorsAlarm"], expected);
    assert_eq!(alarms["DispatchErrorsAlarm"]["Threshold"], "1");
}

#[test]
fn a_loop_that_makes_a_resource_twice_is_an_error() {
    let twice = FIXTURE.replace("[Webhook, Dispatch]", "[Webhook, Webhook]");
    let error = format!("{:#}", Template::parse(&twice).unwrap_err());
    assert!(error.contains("WebhookDurationAlarm is made twice"), "{error}");
}
