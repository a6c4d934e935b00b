//! When a disk will be full, where that is worth a word.

use std::time::Duration;

use super::units::{Rate, human_duration};

/// So long is measured before anything is foretold: the first seconds of a dump are like none of those that follow.
pub const MEASURED: Duration = Duration::from_secs(60);
/// A forecast further away than this is no news.
const FURTHEST: Duration = Duration::from_secs(30 * 60);
/// Nothing is foretold of a disk of which a larger part than one in so many is free.
const FREE_PART: u64 = 4;

/// A filesystem's room, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Free for an unprivileged writer.
    pub free: u64,
    /// Free for root: what is reserved for it, too.
    pub free_for_root: u64,
    /// All bytes.
    pub total: u64,
}

/// How a disk fills.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// What mydumper writes.
    pub incoming: Rate,
    /// What is given up after its upload.
    pub outgoing: Rate,
    /// For how long both were measured.
    pub measured: Duration,
}

/// When the disk will be full, if that is near and can be told.
pub fn forecast(space: Space, flow: Flow) -> Option<String> {
    if flow.measured < MEASURED || space.free > space.total / FREE_PART {
        return None;
    }
    let growth = flow.incoming.0.checked_sub(flow.outgoing.0).filter(|growth| *growth > 0)?;
    let left = Duration::from_secs(space.free / growth);
    let rates = format!("{} in, {} out", flow.incoming.human(), flow.outgoing.human());
    (left <= FURTHEST).then(|| format!("full in {} at {rates}", human_duration(left)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const NEAR: Space = Space { free: 100 * 60 * MIB, free_for_root: 100 * 60 * MIB, total: 1_000 * 60 * MIB };

    fn flow(incoming: u64, outgoing: u64) -> Flow {
        Flow { incoming: Rate(incoming * MIB), outgoing: Rate(outgoing * MIB), measured: MEASURED }
    }

    #[test]
    fn a_forecast_is_made_only_of_a_disk_that_fills_soon() {
        let near = forecast(NEAR, flow(200, 100)).expect("a forecast");
        assert_eq!(near, "full in 1m at 200 MiB/s in, 100 MiB/s out");
        assert_eq!(forecast(NEAR, flow(100, 100)), None);
        assert_eq!(forecast(NEAR, flow(2, 1)), None);
    }

    #[test]
    fn nothing_is_foretold_before_a_minute_of_data() {
        let young = Flow { measured: Duration::from_secs(59), ..flow(200, 100) };
        assert_eq!(forecast(NEAR, young), None);
    }

    #[test]
    fn nothing_is_foretold_of_a_disk_with_plenty_of_room() {
        // 76 GB free of 250 at 58 MB/s: "full in 22 min" was said of such disks night after night.
        let roomy = Space { free: 76_000 * MIB, free_for_root: 76_000 * MIB, total: 250_000 * MIB };
        assert_eq!(forecast(roomy, flow(58, 0)), None);
        assert!(forecast(Space { free: 60_000 * MIB, ..roomy }, flow(58, 0)).is_some());
    }
}
