//! Vectors to measure with.

use std::fs::File;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::Float32Type;
use mainstay::{Error, Result};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Points, queries and, for each query, nothing else: nearest points are computed where they are needed.
pub struct Dataset {
    /// Normalised vectors.
    pub points: Vec<Vec<f32>>,
    /// Normalised vectors.
    pub queries: Vec<Vec<f32>>,
}

impl Dataset {
    /// Numbers in a vector.
    pub fn dimension(&self) -> usize {
        self.points.first().map_or(0, Vec::len)
    }

    /// Reads `points.parquet` and `queries.parquet` of a directory; the column `vector` of each is taken.
    ///
    /// # Errors
    /// `Invalid` naming the file.
    pub fn read(directory: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = directory.join(name);
            vectors(&path).map_err(|error| Error::invalid(format!("{}: {error}", path.display())))
        };
        Ok(Self { points: read("points.parquet")?, queries: read("queries.parquet")? })
    }

    /// 20,000 points in 200 clusters of 384 dimensions, and 300 queries near some of them.
    pub fn generated() -> Self {
        Self::clusters(20_000, 300)
    }

    /// So many points in 200 clusters of 384 dimensions, and so many queries near some of them.
    pub fn clusters(points: usize, queries: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(1);
        let mut random = |around: Option<&Vec<f32>>| {
            let vector: Vec<f32> = (0..384)
                .map(|i| {
                    rng.random_range(-1.0..1.0_f32) + around.map_or(0.0, |center: &Vec<f32>| center[i] * 20.0)
                })
                .collect();
            normalized(vector)
        };
        let centers: Vec<_> = (0..200).map(|_| random(None)).collect();
        let points = (0..points).map(|i| random(centers.get(i % 200))).collect();
        let queries = (0..queries).map(|i| random(centers.get(i % 200))).collect();
        Self { points, queries }
    }
}

/// A vector of length 1.
pub fn normalized(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|v| *v /= length);
    vector
}

fn vectors(path: &Path) -> std::result::Result<Vec<Vec<f32>>, Box<dyn std::error::Error>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?.build()?;
    let mut vectors = Vec::new();
    for batch in reader {
        let batch = batch?;
        let column = batch.column_by_name("vector").ok_or("there is no column `vector`")?;
        let lists =
            column.as_fixed_size_list_opt().ok_or("the column `vector` is no list of a fixed size")?;
        for list in lists.iter().flatten() {
            let values = list.as_primitive_opt::<Float32Type>().ok_or("the vectors are not f32")?;
            vectors.push(normalized(values.values().to_vec()));
        }
    }
    Ok(vectors)
}
