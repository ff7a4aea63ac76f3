//! `collections`.

use mainstay::{
    CollectionName, CollectionSpec, Distance, Error, PayloadIndex, PayloadPath, Result, Tier, VectorSpec,
};
use serde_json::{Value, json};

use crate::args::CollectionsCommand;
use crate::output::{Output, table};

/// Lists, creates or drops collections.
pub async fn run(command: CollectionsCommand, tier: &Tier, output: Output) -> Result<()> {
    match command {
        CollectionsCommand::List => list(tier, output).await,
        CollectionsCommand::Create { name, dimension, distance, indexes } => {
            let mut spec =
                CollectionSpec::dense(CollectionName::new(&name)?, dimension, Distance::parse(&distance)?);
            for index in &indexes {
                let (path, kind) = read_index(index)?;
                spec = spec.with_payload_index(path, kind);
            }
            let written = tier.create_collection(spec).await?;
            output.print(&json!({ "created": name, "lsn": written.lsn.0 }), || format!("created {name}"));
            Ok(())
        }
        CollectionsCommand::Drop { name, yes } => {
            let name = super::existing(tier, &name)?;
            if !yes {
                let points = tier.count(&name, None).await?.value;
                return Err(Error::invalid(format!(
                    "dropping `{name}` deletes its {points} points; --yes does it"
                )));
            }
            let written = tier.drop_collection(&name).await?;
            output.print(&json!({ "dropped": name.as_str(), "lsn": written.lsn.0 }), || {
                format!("dropped {name}")
            });
            Ok(())
        }
    }
}

fn read_index(text: &str) -> Result<(PayloadPath, PayloadIndex)> {
    let (path, kind) = text.rsplit_once('=').ok_or_else(|| {
        Error::invalid(format!("the index {text:?} is not PATH=KIND, such as lang=keyword"))
    })?;
    Ok((path.parse()?, PayloadIndex::parse(kind)?))
}

async fn list(tier: &Tier, output: Output) -> Result<()> {
    let mut values = Vec::new();
    let mut rows = Vec::new();
    for spec in tier.collections() {
        let points = tier.count(&spec.name, None).await?.value;
        let vectors: Vec<_> =
            spec.vectors.iter().map(|(name, vector)| vector_text(name.as_str(), *vector)).collect();
        let indexes: Vec<_> =
            spec.payload_indexes.iter().map(|(path, kind)| format!("{path}={}", kind.as_str())).collect();
        values.push(json!({
            "name": spec.name.as_str(),
            "points": points,
            "vectors": spec.vectors.iter().map(|(n, v)| (n.as_str().to_owned(), vector_json(*v))).collect::<serde_json::Map<_, _>>(),
            "payload_indexes": spec.payload_indexes.iter().map(|(p, k)| (p.to_string(), k.as_str().into())).collect::<serde_json::Map<String, Value>>(),
        }));
        rows.push([spec.name.to_string(), points.to_string(), vectors.join(", "), indexes.join(", ")]);
    }
    output.print(&Value::Array(values), || {
        if rows.is_empty() {
            return "no collections; `mainstay import`, `index` or `collections create` makes one".to_owned();
        }
        table(["collection", "points", "vectors", "payload indexes"], rows)
    });
    Ok(())
}

fn vector_text(name: &str, vector: VectorSpec) -> String {
    let kind = match vector {
        VectorSpec::Dense { dimension, distance } => format!("{dimension} {distance}"),
        VectorSpec::Sparse => "sparse".to_owned(),
    };
    if name.is_empty() { kind } else { format!("{name}: {kind}") }
}

fn vector_json(vector: VectorSpec) -> Value {
    match vector {
        VectorSpec::Dense { dimension, distance } => {
            json!({ "dimension": dimension, "distance": distance.as_str() })
        }
        VectorSpec::Sparse => json!({ "sparse": true }),
    }
}
