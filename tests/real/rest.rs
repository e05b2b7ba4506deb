//! Requests to a member's REST API.

use std::time::Duration;

use serde_json::Value;

use crate::support::block;

/// A request to the REST API at this address: code and body; code 0 when nobody answers.
pub fn request(api: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    request_as(None, api, method, path, body)
}

/// The same with a name and a password.
pub fn request_as(login: Option<(&str, &str)>, api: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let url = format!("http://{api}{path}");
    // An agent that hangs must not hold up who only asks.
    let limit = Duration::from_secs(if method == "GET" { 3 } else { 30 });
    let answer = block(async {
        let client = reqwest::Client::builder().no_proxy().timeout(limit).build()?;
        let mut request = client.request(method.parse().expect("a method"), url);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some((name, password)) = login {
            request = request.basic_auth(name, Some(password));
        }
        let answer = request.send().await?;
        Ok::<_, reqwest::Error>((answer.status().as_u16(), answer.text().await?))
    });
    let (code, text) = answer.unwrap_or_default();
    (code, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}
