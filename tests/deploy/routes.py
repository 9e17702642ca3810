"""Creates the HTTP API's routes in the emulator.

MiniStack deploys AWS::Serverless::HttpApi as an API whose OpenAPI body it does not import, so every path is 404. The
body itself is right there in the processed template: this reads it and makes the same integrations and routes.

Prints the API's id. Usage: routes.py STACK
"""

import re
import sys

import boto3


def main(stack: str) -> None:
    cloudformation = boto3.client("cloudformation")
    apis = boto3.client("apigatewayv2")

    template = cloudformation.get_template(StackName=stack, TemplateStage="Processed")["TemplateBody"]
    resources = {
        resource["LogicalResourceId"]: resource["PhysicalResourceId"]
        for resource in cloudformation.describe_stack_resources(StackName=stack)["StackResources"]
    }
    api_id = resources["HttpApi"]
    paths = template["Resources"]["HttpApi"]["Properties"]["Body"]["paths"]
    routes = 0
    for path, methods in paths.items():
        for method, operation in methods.items():
            integration = operation["x-amazon-apigateway-integration"]
            alias = re.search(r"functions/\$\{(\w+)\}/invocations", integration["uri"]["Fn::Sub"]).group(1)
            created = apis.create_integration(
                ApiId=api_id,
                IntegrationType="AWS_PROXY",
                IntegrationUri=resources[alias],
                PayloadFormatVersion=integration["payloadFormatVersion"],
            )
            apis.create_route(
                ApiId=api_id,
                RouteKey=f"{method.upper()} {path}",
                Target=f"integrations/{created['IntegrationId']}",
            )
            routes += 1
    if routes != 12:
        raise SystemExit(f"the template has {routes} routes instead of 12")
    print(api_id)


if __name__ == "__main__":
    main(sys.argv[1])
