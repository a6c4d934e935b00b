//! What the SDK reads from the environment and would take for more than it is meant for.

use std::ffi::{OsStr, OsString};

use crate::platform;

/// Where a machine, a container or a pod asks for the credentials of its role. (AWS, "IMDS credential provider",
/// "Container credential provider"; those of EKS; and this machine, where an agent may tell them.)
const ROLE_CREDENTIALS: &str =
    "169.254.169.254,fd00:ec2::254,169.254.170.2,169.254.170.23,fd00:ec2::23,127.0.0.1,::1,localhost";
const ENDPOINT: &str = "AWS_ENDPOINT_URL";
const ENDPOINT_OF_S3: &str = "AWS_ENDPOINT_URL_S3";

/// Puts it right. To be called before there is any other thread.
pub fn prepare_environment() {
    for (name, value) in changes(|name| std::env::var_os(name).filter(|value| !value.is_empty())) {
        platform::set_variable(name, value.as_deref());
    }
}

/// - `AWS_ENDPOINT_URL` names the store, and the SDK would ask it for a role's credentials, too: those come from STS, which
///   has `AWS_ENDPOINT_URL_STS`.
/// - A proxy cannot reach the addresses at which this machine is told the credentials of its role.
fn changes(get: impl Fn(&str) -> Option<OsString>) -> Vec<(&'static str, Option<OsString>)> {
    let mut changes = Vec::new();
    if let Some(endpoint) = get(ENDPOINT) {
        if get(ENDPOINT_OF_S3).is_none() {
            changes.push((ENDPOINT_OF_S3, Some(endpoint)));
        }
        changes.push((ENDPOINT, None));
    }
    let proxies = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    if proxies.into_iter().any(|proxy| get(proxy).is_some()) {
        let (name, given) = match (get("NO_PROXY"), get("no_proxy")) {
            (None, Some(given)) => ("no_proxy", given),
            (given, _) => ("NO_PROXY", given.unwrap_or_default()),
        };
        if given != OsStr::new("*") {
            let mut past = given;
            if !past.is_empty() {
                past.push(",");
            }
            past.push(ROLE_CREDENTIALS);
            changes.push((name, Some(past)));
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(environment: &[(&str, &str)]) -> Vec<(&'static str, Option<String>)> {
        let get = |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        let text = |value: OsString| value.into_string().expect("UTF-8");
        changes(get).into_iter().map(|(name, value)| (name, value.map(text))).collect()
    }

    #[test]
    fn the_stores_endpoint_is_s3s_alone() {
        let store = Some("http://minio:9000".to_owned());
        assert_eq!(changed(&[("AWS_ENDPOINT_URL", "http://minio:9000")]), [(ENDPOINT_OF_S3, store), (ENDPOINT, None)]);
        let both = [("AWS_ENDPOINT_URL", "http://a"), ("AWS_ENDPOINT_URL_S3", "http://b")];
        assert_eq!(changed(&both), [(ENDPOINT, None)]);
        assert_eq!(changed(&[("AWS_ENDPOINT_URL_S3", "http://b"), ("AWS_ENDPOINT_URL_STS", "http://c")]), []);
    }

    #[test]
    fn role_credentials_go_past_a_proxy() {
        let past = |given: &str| Some(format!("{given}{ROLE_CREDENTIALS}"));
        assert_eq!(changed(&[("HTTP_PROXY", "http://proxy:3128")]), [("NO_PROXY", past(""))]);
        let given = [("https_proxy", "http://proxy:3128"), ("no_proxy", "db1,.example.com")];
        assert_eq!(changed(&given), [("no_proxy", past("db1,.example.com,"))]);
        assert_eq!(changed(&[("HTTPS_PROXY", "http://proxy:3128"), ("NO_PROXY", "*")]), []);
        assert_eq!(changed(&[("NO_PROXY", "db1")]), []);
    }
}
