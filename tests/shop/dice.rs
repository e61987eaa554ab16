//! Chance, for tests that kill at random moments.

use std::time::SystemTime;

/// Numbers that follow from a seed (SplitMix64), so that a run can be repeated.
pub(crate) struct Dice(u64);

impl Dice {
    /// Seeded by `SHOP_CRASH_SEED`, or by the clock; says so, for the output of a failed test.
    pub(crate) fn new() -> Self {
        let given = std::env::var("SHOP_CRASH_SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = given.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            u64::try_from(now.as_micros()).unwrap()
        });
        println!("repeat with SHOP_CRASH_SEED={seed}");
        Self(seed)
    }

    /// One of the numbers below a bound.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
