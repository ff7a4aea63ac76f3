//! What one seed shares: its randomness, clock, history, the moment of a crash, and what was promised to whom.

use std::sync::Arc;
use std::time::Duration;

use mainstay::{Lsn, Status, Tier};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::scenario::Scenario;
use crate::store::Machine;
use crate::truth::Truth;

/// Steps in a life of the process, several times what any seed needs.
const MOST_STEPS: u64 = 400_000;

/// Why a process ended before its work did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It crashed; what it wrote is with the operating system.
    Crash,
    /// A promise was broken: nothing after it counts.
    Broken,
}

/// A promise that was broken, with the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which promise, such as `P3`.
    pub promise: &'static str,
    /// What was seen.
    pub what: String,
    /// The virtual time.
    pub at: Duration,
}

/// The answer of a store to the read that was answered last.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// Which member.
    pub member: usize,
    /// What its data holds for certain.
    pub position: Option<Lsn>,
    /// What its data may hold of.
    pub horizon: Lsn,
    /// Its data went back and nobody was told yet.
    pub surprised: bool,
}

#[derive(Default)]
struct Clock {
    /// Virtual time before the process that runs now.
    before: Duration,
    started: Option<Instant>,
}

#[derive(Default)]
struct Process {
    end: Option<End>,
    /// Steps until it crashes.
    crash_in: Option<u64>,
    tier: Option<Tier>,
    taken: u64,
}

/// What clients were told, and what must therefore hold.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Every entry up to here was acked to somebody by the log, in any life of the process.
    pub logged: Lsn,
    /// As far as the log said that it is durable.
    pub synced: Lsn,
    /// Writes acked by this process under `active` or `all`.
    pub acked: Lsn,
    /// Tokens of writes that were refused without an effect.
    pub refused: Vec<(u64, String)>,
    /// The log failed in this process and has to refuse from now on.
    pub latched: bool,
    /// An operator let this member serve first again, then.
    pub restored: Vec<Option<Duration>>,
}

/// The shared state of one seed.
pub struct World {
    /// The seed.
    pub seed: u64,
    /// What the seed drew.
    pub scenario: Scenario,
    /// What the log says.
    pub truth: Mutex<Truth>,
    /// What clients were told.
    pub told: Mutex<Told>,
    /// The stores.
    pub machines: Mutex<Vec<Arc<Machine>>>,
    /// Whether faults may strike.
    pub weather: Mutex<bool>,
    /// Who answered the read that was answered last.
    pub served: Mutex<Option<Served>>,
    rng: Mutex<SmallRng>,
    clock: Mutex<Clock>,
    history: Mutex<Option<Vec<String>>>,
    process: Mutex<Process>,
    over: Notify,
    broken: Mutex<Option<Broken>>,
    token: Mutex<u64>,
    judged: Mutex<bool>,
}

impl World {
    /// The world of a seed; keeps the lines of its history if told so.
    pub fn new(seed: u64, keep_history: bool) -> Arc<Self> {
        let mut rng = SmallRng::seed_from_u64(seed);
        let scenario = Scenario::draw(&mut rng);
        let told = Told { restored: vec![None; scenario.members.len()], ..Told::default() };
        Arc::new(Self {
            seed,
            scenario,
            truth: Mutex::default(),
            told: Mutex::new(told),
            machines: Mutex::default(),
            weather: Mutex::new(true),
            served: Mutex::default(),
            rng: Mutex::new(rng),
            clock: Mutex::default(),
            history: Mutex::new(keep_history.then(Vec::new)),
            process: Mutex::default(),
            over: Notify::new(),
            broken: Mutex::default(),
            token: Mutex::default(),
            judged: Mutex::new(true),
        })
    }

    /// A world in which the weather is good and nobody compares anything, for a store alone.
    pub fn unjudged() -> Arc<Self> {
        let world = Self::new(0, false);
        world.set_weather(false);
        *world.judged.lock() = false;
        world
    }

    /// Draws from the one source of randomness.
    pub fn draw<T>(&self, draw: impl FnOnce(&mut SmallRng) -> T) -> T {
        draw(&mut self.rng.lock())
    }

    /// True once in `n`.
    pub fn one_in(&self, n: u32) -> bool {
        self.draw(|rng| rng.random_ratio(1, n))
    }

    /// A duration of so many milliseconds.
    pub fn millis(&self, range: std::ops::RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.draw(|rng| rng.random_range(range)))
    }

    /// A number that was not given before.
    pub fn token(&self) -> u64 {
        let mut token = self.token.lock();
        *token += 1;
        *token
    }

    /// The virtual time since the seed began.
    pub fn now(&self) -> Duration {
        let clock = self.clock.lock();
        clock.before + clock.started.map_or(Duration::ZERO, |started| started.elapsed())
    }

    /// Writes a line of history.
    pub fn note(&self, line: impl FnOnce() -> String) {
        if self.is_over() {
            return;
        }
        let now = self.now();
        let mut history = self.history.lock();
        if let Some(lines) = &mut *history {
            let line = format!("{:>11.3} {}", now.as_secs_f64(), line());
            lines.push(line);
        }
    }

    /// The history so far.
    pub fn history(&self) -> Vec<String> {
        self.history.lock().clone().unwrap_or_default()
    }

    /// A promise was broken; only the first counts.
    pub fn fail(&self, promise: &'static str, what: impl Into<String>) {
        let what = what.into();
        if self.is_over() || !*self.judged.lock() {
            return;
        }
        self.note(|| format!("BROKEN {promise}: {what}"));
        self.broken.lock().get_or_insert(Broken { promise, what, at: self.now() });
        self.end(End::Broken);
    }

    /// Fails unless something is so.
    pub fn expect(&self, so: bool, promise: &'static str, what: impl FnOnce() -> String) {
        if !so {
            self.fail(promise, what());
        }
    }

    /// What was broken, if anything was.
    pub fn broken(&self) -> Option<Broken> {
        self.broken.lock().clone()
    }

    /// Begins a process that crashes after so many steps, if at all. In its runtime.
    pub fn begin(&self, crash_in: Option<u64>) {
        self.clock.lock().started = Some(Instant::now());
        *self.process.lock() = Process { crash_in, ..Process::default() };
        let mut told = self.told.lock();
        told.acked = Lsn::ZERO;
        told.latched = false;
        told.restored.fill(None);
    }

    /// Something is found out after the last process ended.
    pub fn fail_after(&self, promise: &'static str, what: &str) {
        self.process.lock().end = None;
        self.fail(promise, what);
    }

    /// The process is gone. In its runtime.
    pub fn gone(&self) {
        let mut clock = self.clock.lock();
        if let Some(started) = clock.started.take() {
            clock.before += started.elapsed();
        }
        self.process.lock().tier = None;
    }

    /// The process has a tier now.
    pub fn has_tier(&self, tier: &Tier) {
        self.process.lock().tier = Some(tier.clone());
    }

    /// The status of the tier, if there is one.
    pub fn status(&self) -> Option<Status> {
        let tier = self.process.lock().tier.clone();
        tier.map(|tier| tier.status())
    }

    /// Whether the process has ended; what still runs is not there any more.
    pub fn is_over(&self) -> bool {
        self.process.lock().end.is_some()
    }

    /// Why the process ended.
    pub fn ended(&self) -> Option<End> {
        self.process.lock().end
    }

    /// Ends the process at once.
    pub fn end(&self, end: End) {
        self.process.lock().end.get_or_insert(end);
        self.over.notify_one();
    }

    /// Waits for the end of the process.
    pub async fn over(&self) {
        while !self.is_over() {
            self.over.notified().await;
        }
    }

    /// One step of the process; false if it does not exist any more.
    pub fn steps(&self) -> bool {
        let crashes = {
            let mut process = self.process.lock();
            if process.end.is_some() {
                return false;
            }
            process.taken += 1;
            if process.taken > MOST_STEPS {
                drop(process);
                self.fail("P6", "the process goes round in circles");
                return false;
            }
            match &mut process.crash_in {
                Some(0) => true,
                Some(left) => {
                    *left -= 1;
                    false
                }
                None => false,
            }
        };
        if crashes {
            self.note(|| "CRASH of the process".to_owned());
            self.end(End::Crash);
        }
        !crashes
    }

    /// One step that never ends if the process does not exist any more.
    pub async fn step(&self) {
        if !self.steps() {
            std::future::pending::<()>().await;
        }
    }

    /// No crash from now on.
    pub fn never_crash(&self) {
        self.process.lock().crash_in = None;
    }

    /// Faults may strike, or may not.
    pub fn set_weather(&self, on: bool) {
        *self.weather.lock() = on;
    }

    /// Whether faults may strike.
    pub fn is_stormy(&self) -> bool {
        *self.weather.lock()
    }

    /// The cursors of the tier never lie (P5), and the log keeps its limit (P11).
    pub fn check_status(&self) {
        let Some(status) = self.status() else { return };
        self.expect(status.log.bytes <= status.log.max_bytes, "P11", || {
            format!("the log holds {} bytes of {}", status.log.bytes, status.log.max_bytes)
        });
        let machines = self.machines.lock().clone();
        for (machine, member) in machines.iter().zip(&status.members) {
            if let Err(what) = machine.check_cursor(member) {
                self.fail("P5", format!("{}: {what}", member.name));
            }
        }
    }
}
