//! The parts of a file, each checked before anything is taken from it: that it is one schema, the one it must be, and one
//! batch, and that no length in it reaches beyond the file or asks for more memory than a file may. Written by hand, because
//! Arrow's own reader takes it for granted that files are well formed, and panics where they are not.

use std::borrow::Cow;

use arrow_buffer::MutableBuffer;
use arrow_ipc::{
    BodyCompressionMethod, CompressionType, Endianness, Field, Message, MessageHeader, MetadataVersion,
    Precision, RecordBatch, Type,
};
use arrow_schema::{DataType, SchemaRef};

use super::memory::ROW_BYTES;

/// What every message begins with, and what ends a file before a length of zero.
pub(super) const CONTINUATION: [u8; 4] = [0xff; 4];
/// Largest description of a batch: 64 vectors need some kilobytes.
const MAX_METADATA: usize = 1 << 20;

/// The batch of a file: where its columns are.
pub(super) struct Batch<'a> {
    /// How many points it has.
    pub(super) rows: usize,
    /// Length and number of nulls of each array, depth first.
    nodes: std::vec::IntoIter<(usize, usize)>,
    /// Each buffer as it is packed, depth first.
    buffers: std::vec::IntoIter<&'a [u8]>,
    /// Bytes of memory that its points may still take.
    pub(super) left: u64,
    unpacker: zstd::bulk::Decompressor<'static>,
}

/// Finds the batch of a file that must have this schema and whose points may take `max_bytes` of memory.
///
/// # Errors
/// What is wrong with the file.
pub(super) fn open<'a>(file: &'a [u8], schema: &SchemaRef, max_bytes: u64) -> Result<Batch<'a>, String> {
    let mut rest = file;
    let described = message(&mut rest)?.ok_or("it ends before its schema")?;
    check_schema(parse(&described)?, schema)?;
    let described = message(&mut rest)?.ok_or("it ends before its points")?;
    let points = parse(&described)?;
    let length = usize::try_from(points.bodyLength()).map_err(|_| "its body has no length")?;
    let body = take(&mut rest, length)?;
    let batch = batch(points, body, max_bytes)?;
    if message(&mut rest)?.is_some() || !rest.is_empty() {
        return Err("something follows its points".to_owned());
    }
    Ok(batch)
}

impl<'a> Batch<'a> {
    /// How many nulls the next array has, which must be of this length.
    pub(super) fn array(&mut self, length: usize) -> Result<usize, String> {
        match self.nodes.next() {
            Some((found, nulls)) if found == length && nulls <= length => Ok(nulls),
            _ => Err("its columns are not of one length".to_owned()),
        }
    }

    /// The next buffer, unpacked, which must have as many bytes or more.
    pub(super) fn buffer(&mut self, least: usize) -> Result<Cow<'a, [u8]>, String> {
        const SHORT: &str = "a column is too short";
        let packed = self.buffers.next().ok_or("it has too few columns")?;
        if packed.is_empty() {
            return if least == 0 { Ok(Cow::Borrowed(packed)) } else { Err(SHORT.to_owned()) };
        }
        let (prefix, data) = packed.split_first_chunk::<8>().ok_or(SHORT)?;
        let length = match i64::from_le_bytes(*prefix) {
            // Kept as it is, because packing did not make it smaller.
            -1 => data.len(),
            length => usize::try_from(length).map_err(|_| "a column of negative length")?,
        };
        // Once unpacked, and once as points.
        self.take((length as u64).saturating_mul(2))?;
        if length < least {
            return Err(SHORT.to_owned());
        }
        if i64::from_le_bytes(*prefix) == -1 {
            return Ok(Cow::Borrowed(data));
        }
        let unpacked =
            self.unpacker.decompress(data, length).map_err(|e| format!("a column is damaged: {e}"))?;
        if unpacked.len() != length {
            return Err(SHORT.to_owned());
        }
        Ok(Cow::Owned(unpacked))
    }

    /// Which rows of the next array are there, of so many of which so many are null.
    pub(super) fn validity(&mut self, rows: usize, nulls: usize) -> Result<Vec<bool>, String> {
        if nulls == 0 {
            self.buffer(0)?;
            return Ok(vec![true; rows]);
        }
        let bits = self.buffer(rows.div_ceil(8))?;
        Ok((0..rows).map(|row| bits[row / 8] >> (row % 8) & 1 == 1).collect())
    }

    /// Some of the memory that the points may take.
    pub(super) fn take(&mut self, bytes: u64) -> Result<(), String> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            format!("its points would take more than the {} bytes of memory that are left", self.left)
        })?;
        Ok(())
    }

    /// That nothing is left.
    pub(super) fn end(mut self) -> Result<(), String> {
        match self.nodes.next().is_some() || self.buffers.next().is_some() {
            true => Err("it has more columns than it should".to_owned()),
            false => Ok(()),
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], String> {
    let (taken, after) = rest.split_at_checked(length).ok_or("it ends too early")?;
    *rest = after;
    Ok(taken)
}

/// The description of the next message, `None` at the mark of the end. A copy, because what reads it wants it aligned.
fn message(rest: &mut &[u8]) -> Result<Option<MutableBuffer>, String> {
    if take(rest, 4)? != CONTINUATION {
        return Err("a part does not begin with the mark of one".to_owned());
    }
    let length = i32::from_le_bytes(take(rest, 4)?.try_into().unwrap_or_default());
    match usize::try_from(length) {
        Ok(0) => Ok(None),
        Ok(length) if length <= MAX_METADATA => {
            let mut copy = MutableBuffer::with_capacity(length);
            copy.extend_from_slice(take(rest, length)?);
            Ok(Some(copy))
        }
        _ => Err(format!("a part with a description of {length} bytes")),
    }
}

fn parse(described: &MutableBuffer) -> Result<Message<'_>, String> {
    arrow_ipc::root_as_message(described.as_slice())
        .map_err(|error| format!("a part has a damaged description: {error}"))
}

fn check_schema(message: Message<'_>, wanted: &SchemaRef) -> Result<(), String> {
    let found = message.header_as_schema().ok_or("it does not begin with a schema")?;
    if found.endianness() != Endianness::Little || message.bodyLength() != 0 {
        return Err("its schema is not one that is written".to_owned());
    }
    let fields = found.fields().ok_or("its schema has no columns")?;
    match fields_are(fields.iter(), wanted.fields()) {
        true => Ok(()),
        false => Err("its columns are not those of the collection".to_owned()),
    }
}

fn batch<'a>(message: Message<'_>, body: &'a [u8], max_bytes: u64) -> Result<Batch<'a>, String> {
    const NEGATIVE: &str = "a column of negative length";
    let batch = message.header_as_record_batch().ok_or("its second part is no batch of points")?;
    if message.header_type() != MessageHeader::RecordBatch || message.version() != MetadataVersion::V5 {
        return Err("its second part is no batch of points".to_owned());
    }
    check_packing(&batch)?;
    let rows = usize::try_from(batch.length()).map_err(|_| "it has a negative number of points")?;
    let left = max_bytes.checked_sub((rows as u64).saturating_mul(ROW_BYTES));
    let left = left.ok_or_else(|| format!("it says that it has {rows} points"))?;
    let node = |node: &arrow_ipc::FieldNode| {
        let length = usize::try_from(node.length()).map_err(|_| NEGATIVE)?;
        Ok((length, usize::try_from(node.null_count()).map_err(|_| NEGATIVE)?))
    };
    let nodes = batch.nodes().ok_or("its batch has no columns")?;
    let nodes: Vec<_> = nodes.iter().map(node).collect::<Result<_, &str>>()?;
    let buffer = |buffer: &arrow_ipc::Buffer| {
        let (offset, length) =
            (usize::try_from(buffer.offset()).ok()?, usize::try_from(buffer.length()).ok()?);
        body.get(offset..offset.checked_add(length)?)
    };
    let buffers = batch.buffers().ok_or("its batch has no data")?;
    let buffers: Option<Vec<_>> = buffers.iter().map(buffer).collect();
    Ok(Batch {
        rows,
        nodes: nodes.into_iter(),
        buffers: buffers.ok_or("a column reaches beyond its end")?.into_iter(),
        left,
        unpacker: zstd::bulk::Decompressor::new().map_err(|error| error.to_string())?,
    })
}

fn check_packing(batch: &RecordBatch<'_>) -> Result<(), String> {
    let packed = batch.compression().ok_or("its batch is not packed")?;
    if packed.codec() != CompressionType::ZSTD || packed.method() != BodyCompressionMethod::BUFFER {
        return Err("its batch is not packed with zstd".to_owned());
    }
    Ok(())
}

fn fields_are<'a>(
    mut found: impl ExactSizeIterator<Item = Field<'a>>,
    wanted: &arrow_schema::Fields,
) -> bool {
    found.len() == wanted.len()
        && wanted.iter().all(|wanted| found.next().is_some_and(|f| field_is(f, wanted)))
}

fn field_is(found: Field<'_>, wanted: &arrow_schema::Field) -> bool {
    let int = |bits: i32| found.type_as_int().is_some_and(|int| int.bitWidth() == bits && !int.is_signed());
    let children = |wanted: &arrow_schema::Fields| {
        found.children().is_some_and(|children| fields_are(children.iter(), wanted))
    };
    let type_is = match wanted.data_type() {
        DataType::UInt64 => int(64),
        DataType::UInt32 => int(32),
        DataType::Float32 => {
            found.type_as_floating_point().is_some_and(|float| float.precision() == Precision::SINGLE)
        }
        DataType::Utf8 => found.type_type() == Type::Utf8,
        DataType::FixedSizeBinary(width) => {
            found.type_as_fixed_size_binary().is_some_and(|binary| binary.byteWidth() == *width)
        }
        DataType::Struct(fields) => found.type_type() == Type::Struct_ && children(fields),
        DataType::List(item) => {
            found.type_type() == Type::List && children(&arrow_schema::Fields::from(vec![item.clone()]))
        }
        _ => false,
    };
    type_is
        && found.name() == Some(wanted.name())
        && found.nullable() == wanted.is_nullable()
        && found.dictionary().is_none()
}
