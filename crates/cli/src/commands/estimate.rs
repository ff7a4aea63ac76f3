//! `estimate`.

use std::path::Path;
use std::process::ExitCode;

use mainstay::{Error, Result};

use crate::args::EstimateArgs;
use crate::output::Output;

/// Says what points would take in a memory member; exit code 5 if some would be refused.
#[cfg(feature = "memory")]
pub async fn run(args: &EstimateArgs, config: &Path, output: Output) -> Result<ExitCode> {
    memory::run(args, config, output).await
}

/// There is nothing to estimate for.
#[cfg(not(feature = "memory"))]
pub async fn run(_: &EstimateArgs, _: &Path, _: Output) -> Result<ExitCode> {
    let text = "the backend `memory` is not compiled in: add the cargo feature `memory`";
    Err(Error::new(mainstay::ErrorKind::Unsupported, text))
}

#[cfg(feature = "memory")]
mod memory {
    use std::path::Path;
    use std::process::ExitCode;

    use mainstay::config::{BackendConfig, MemoryConfig};
    use mainstay::memory::estimate::{Plan, bytes, plan};
    use mainstay::memory::{MemoryOptions, Quantization, free_bytes};
    use mainstay::{Config, Distance, Result, expected_of_store, expected_of_tier, memory_options};
    use mainstay_cli::index::Recipe;
    use mainstay_cli::survey;
    use mainstay_core::Expected;
    use serde_json::{Value, json};

    use super::Error;
    use crate::args::EstimateArgs;
    use crate::output::{Output, table};

    pub async fn run(args: &EstimateArgs, path: &Path, output: Output) -> Result<ExitCode> {
        // A directory or a file can do without a config.
        let config = if path.exists() { Some(Config::load(path)?) } else { None };
        let mut found = Vec::new();
        for target in &args.targets {
            let target = Target::parse(target, config.as_ref())?;
            let options = options(args, config.as_ref(), &target)?;
            let expected = target.expected(args, config.as_ref(), output).await?;
            found.push(Found { plan: plan(&options, &expected, free_bytes()), target, options, expected });
        }
        let values: Vec<_> = found.iter().map(Found::json).collect();
        output.print(&json!(values), || {
            let header = ["target", "points", "bytes a point", "f32", "f16", "i8", "zone", "held"];
            let lines = found.iter().flat_map(|found| {
                found.advice().into_iter().map(|line| format!("\n{}: {line}", found.target.name))
            });
            format!("{}{}", table(header, found.iter().map(Found::row)), lines.collect::<String>())
        });
        let all_fit = found.iter().all(|found| found.plan.refused.is_empty());
        Ok(if all_fit { ExitCode::SUCCESS } else { ExitCode::from(5) })
    }

    /// What is to be held in memory.
    struct Target<'a> {
        name: &'a str,
        kind: Kind<'a>,
    }

    enum Kind<'a> {
        Directory,
        File,
        Member(&'a BackendConfig),
    }

    impl<'a> Target<'a> {
        fn parse(name: &'a str, config: Option<&'a Config>) -> Result<Self> {
            let path = Path::new(name);
            let kind = match config.and_then(|config| config.members.get(name)) {
                Some(member) => Kind::Member(&member.backend),
                None if path.is_dir() => Kind::Directory,
                None if path.exists() => Kind::File,
                None => {
                    let members = config.map_or_else(
                        || "there is no config".to_owned(),
                        |config| config.tier.members.join(", "),
                    );
                    return Err(Error::invalid(format!(
                        "`{name}` is neither a directory, nor a file, nor a member ({members})"
                    )));
                }
            };
            Ok(Self { name, kind })
        }

        fn word(&self) -> &'static str {
            match self.kind {
                Kind::Directory => "directory",
                Kind::File => "file",
                Kind::Member(_) => "member",
            }
        }

        async fn expected(
            &self,
            args: &EstimateArgs,
            config: Option<&Config>,
            output: Output,
        ) -> Result<Vec<Expected>> {
            let path = Path::new(self.name);
            match (&self.kind, config) {
                (Kind::Directory, _) => {
                    // What is indexed does not matter, only how long it is.
                    let recipe = Recipe::new(args.chunk_chars, "estimate");
                    Ok(vec![survey::of_directory(path, &recipe, args.dimension)?])
                }
                (Kind::File, _) => {
                    let bar = output.bar(0, "reading");
                    let progress = |done: u64, total: u64| {
                        bar.set_length(total);
                        bar.set_position(done);
                    };
                    let distance = Distance::parse(&args.distance)?;
                    let expected = survey::of_file(path, distance, &progress);
                    bar.finish_and_clear();
                    Ok(vec![expected?])
                }
                (Kind::Member(BackendConfig::Memory(_)), Some(config)) => expected_of_tier(config).await,
                (Kind::Member(backend), _) => {
                    expected_of_store(backend).await.map_err(|error| error.with_member(self.name))
                }
            }
        }
    }

    /// The options of the memory member that is meant, or else of the first one, or the defaults.
    fn options(args: &EstimateArgs, config: Option<&Config>, target: &Target<'_>) -> Result<MemoryOptions> {
        let in_order = config.into_iter().flat_map(|config| {
            config
                .tier
                .members
                .iter()
                .filter_map(|name| config.members.get(name))
                .map(|member| &member.backend)
        });
        let meant = match target.kind {
            Kind::Member(backend) => Some(backend),
            Kind::Directory | Kind::File => None,
        };
        let mut memory = meant.into_iter().chain(in_order).find_map(|backend| match backend {
            BackendConfig::Memory(memory) => Some(memory.clone()),
            _ => None,
        });
        let memory = memory.get_or_insert_with(MemoryConfig::default);
        let given = [("max_memory", &args.max_memory), ("quantization", &args.quantization)];
        let keys =
            given.iter().filter_map(|(key, value)| Some(format!("{key} = {}\n", json!(value.as_ref()?))));
        // Sizes and words are read as the config reads them.
        let text = format!(
            "[tier]\nmembers = [\"estimate\"]\n[members.estimate]\nbackend = \"memory\"\n{}",
            keys.collect::<String>()
        );
        let read = Config::from_toml(&text)?;
        if let Some(BackendConfig::Memory(read)) = read.members.get("estimate").map(|member| &member.backend)
        {
            if args.max_memory.is_some() {
                memory.max_memory = read.max_memory;
            }
            if args.quantization.is_some() {
                memory.quantization = read.quantization;
            }
        }
        Ok(memory_options(memory))
    }

    /// What was found of a target.
    struct Found<'a> {
        target: Target<'a>,
        options: MemoryOptions,
        expected: Vec<Expected>,
        plan: Plan,
    }

    impl Found<'_> {
        fn bytes_in(&self, quantization: Quantization) -> u64 {
            bytes(&MemoryOptions { quantization, ..self.options.clone() }, &self.expected)
        }

        fn held(&self) -> &'static str {
            if !self.plan.refused.is_empty() {
                "refused"
            } else if self.plan.partial {
                "in part"
            } else {
                self.plan.quantization.as_str()
            }
        }

        /// What to know and what to do.
        fn advice(&self) -> Vec<String> {
            let plan = &self.plan;
            let mut advice = plan.refused.clone();
            if advice.is_empty() {
                advice.extend(plan.notice());
            }
            advice
        }

        fn row(&self) -> [String; 8] {
            let bytes = |quantization| mebibytes(self.bytes_in(quantization));
            [
                self.target.name.to_owned(),
                self.plan.points.to_string(),
                self.plan.bytes_per_point().to_string(),
                bytes(Quantization::F32),
                bytes(Quantization::F16),
                bytes(Quantization::I8),
                self.plan.zone.to_string(),
                self.held().to_owned(),
            ]
        }

        fn json(&self) -> Value {
            let plan = &self.plan;
            json!({
                "target": self.target.name,
                "kind": self.target.word(),
                "points": plan.points,
                "bytes": plan.bytes,
                "bytes_per_point": plan.bytes_per_point(),
                "by_quantization": {
                    "f32": self.bytes_in(Quantization::F32),
                    "f16": self.bytes_in(Quantization::F16),
                    "i8": self.bytes_in(Quantization::I8),
                },
                "zone": plan.zone.as_str(),
                "quantization": plan.quantization.as_str(),
                "max_memory": plan.max_memory,
                "needed_bytes": plan.needed_bytes,
                "free_bytes": plan.free_bytes,
                "fits": plan.refused.is_empty(),
                "partial": plan.partial,
                "advice": self.advice(),
            })
        }
    }

    fn mebibytes(bytes: u64) -> String {
        format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
    }
}
