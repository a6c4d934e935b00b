//! The server's own patience: amid a LOAD DATA it waits for rows no longer than its `net_read_timeout`.

use std::time::Duration;

use crate::exit_status::Failure;
use crate::hint::{hint_of, hinted};
use crate::model::load_target::LoadTarget;
use crate::model::units::human_duration;

/// `net_read_timeout` where nobody changed it, in seconds.
const DEFAULT: u64 = 30;

/// Names the variable, where rows of a LOAD DATA were waited for for longer than the server waits.
pub fn named(failure: Failure, waited: Duration, target: Option<&LoadTarget>) -> Failure {
    let seconds = target.map_or(DEFAULT, |target| target.net_read_timeout);
    if waited < Duration::from_secs(seconds) {
        return failure;
    }
    let whose = if target.is_some() { "the server's" } else { "a server's" };
    let hint = format!(
        "rows of a LOAD DATA were waited for for {}, and {whose} net_read_timeout is {seconds} s{}: SET GLOBAL \
         net_read_timeout = 3600 gives it time; {}",
        human_duration(waited),
        if target.is_some() { "" } else { " by default" },
        hint_of(&failure.error).unwrap_or_default(),
    );
    Failure { error: hinted(failure.error, hint), ..failure }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn the_variable_is_named_where_the_server_may_have_given_up() {
        let row = ["db1", "3306", "10.11.14-MariaDB", "0", "0", "40", "2"].map(|text| Some(text.to_owned()));
        let target = LoadTarget::of_row(&row).expect("a target");
        let hint = |seconds, target| {
            let failure = Failure::failed(hinted(anyhow!("myloader ended with status 1"), "shop.t is not whole"));
            let failure = named(failure, Duration::from_secs(seconds), target);
            assert_eq!(failure.error.to_string(), "myloader ended with status 1");
            hint_of(&failure.error).expect("a hint")
        };
        assert_eq!(hint(39, Some(&target)), "shop.t is not whole");
        assert!(hint(41, Some(&target)).starts_with("rows of a LOAD DATA were waited for for 41s, and the server's"));
        assert!(hint(31, None).contains("a server's net_read_timeout is 30 s by default"), "{}", hint(31, None));
        assert!(hint(31, None).ends_with("; shop.t is not whole"));
    }
}
