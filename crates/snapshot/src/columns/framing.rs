//! What is checked of a file before a decoder sees it: that it is one schema, the one it must be, and one batch, and that
//! no length in it reaches beyond the file or asks for more memory than a file may.

use std::collections::HashMap;

use arrow_array::RecordBatch;
use arrow_buffer::{Buffer, MutableBuffer};
use arrow_ipc::reader::read_record_batch;
use arrow_ipc::{BodyCompressionMethod, CompressionType, MessageHeader, MetadataVersion, Precision, Type};
use arrow_schema::{DataType, Field, SchemaRef};

/// What every message begins with.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// Largest description of a batch: 64 vectors need some kilobytes.
const MAX_METADATA: usize = 1 << 20;

/// Reads the batch of a file that must have this schema and may take `max_bytes` unpacked.
///
/// # Errors
/// What is wrong with the file.
pub(super) fn read(bytes: bytes::Bytes, schema: &SchemaRef, max_bytes: u64) -> Result<RecordBatch, String> {
    let file = Buffer::from(bytes);
    let mut at = 0;
    let described = message(&file, &mut at)?.ok_or("it ends before its schema")?;
    let body = with_message(&described, |message| {
        let found = message.header_as_schema().ok_or("it does not begin with a schema")?;
        if found.endianness() != arrow_ipc::Endianness::Little {
            return Err("its numbers are not little-endian".to_owned());
        }
        let fields = found.fields().ok_or("its schema has no columns")?;
        if !fields_are(fields.iter(), schema.fields()) {
            return Err("its columns are not those of the collection".to_owned());
        }
        Ok(message.bodyLength())
    })?;
    if body != 0 {
        return Err("its schema has a body".to_owned());
    }
    let described = message(&file, &mut at)?.ok_or("it ends before its points")?;
    let batch = with_message(&described, |message| {
        if message.header_type() != MessageHeader::RecordBatch || message.version() != MetadataVersion::V5 {
            return Err("its second part is no batch of points".to_owned());
        }
        let batch = message.header_as_record_batch().ok_or("its batch has no description")?;
        let length = usize::try_from(message.bodyLength()).map_err(|_| "its body has no length")?;
        let end = at.checked_add(length).filter(|end| *end <= file.len()).ok_or("it ends too early")?;
        let body = file.slice_with_length(at, length);
        check_batch(&batch, &body, max_bytes)?;
        at = end;
        read_record_batch(&body, batch, schema.clone(), &HashMap::new(), None, &message.version())
            .map_err(|error| error.to_string())
    })?;
    if message(&file, &mut at)?.is_some() || at != file.len() {
        return Err("something follows its points".to_owned());
    }
    Ok(batch)
}

/// The description of the next message; `None` at the mark of the end.
fn message(file: &Buffer, at: &mut usize) -> Result<Option<MutableBuffer>, String> {
    let mut take = |length: usize| {
        let end = at.checked_add(length).filter(|end| *end <= file.len()).ok_or("it ends too early")?;
        let taken = &file.as_slice()[*at..end];
        *at = end;
        Ok::<_, String>(taken)
    };
    if take(4)? != CONTINUATION {
        return Err("a part does not begin with the mark of one".to_owned());
    }
    let length = i32::from_le_bytes(take(4)?.try_into().unwrap_or_default());
    match usize::try_from(length) {
        Ok(0) => Ok(None),
        Ok(length) if length <= MAX_METADATA => {
            // What reads it wants it aligned.
            let mut copy = MutableBuffer::with_capacity(length);
            copy.extend_from_slice(take(length)?);
            Ok(Some(copy))
        }
        _ => Err(format!("a part with a description of {length} bytes")),
    }
}

fn with_message<T>(
    described: &MutableBuffer,
    read: impl FnOnce(arrow_ipc::Message<'_>) -> Result<T, String>,
) -> Result<T, String> {
    let message = arrow_ipc::root_as_message(described.as_slice())
        .map_err(|error| format!("a part has a damaged description: {error}"))?;
    read(message)
}

fn check_batch(batch: &arrow_ipc::RecordBatch<'_>, body: &Buffer, max_bytes: u64) -> Result<(), String> {
    if batch.variadicBufferCounts().is_some_and(|counts| !counts.is_empty()) {
        return Err("its batch has columns of a kind that is not used".to_owned());
    }
    let packed = batch.compression().ok_or("its batch is not packed")?;
    if packed.codec() != CompressionType::ZSTD || packed.method() != BodyCompressionMethod::BUFFER {
        return Err("its batch is not packed with zstd".to_owned());
    }
    let rows = u64::try_from(batch.length()).map_err(|_| "it has a negative number of points")?;
    for node in batch.nodes().ok_or("its batch has no columns")? {
        let length = u64::try_from(node.length()).map_err(|_| "a column of negative length")?;
        let nulls = u64::try_from(node.null_count()).map_err(|_| "a column of negative length")?;
        if length > max_bytes || nulls > length {
            return Err("a column of a length that cannot be".to_owned());
        }
    }
    let mut sum = rows;
    for buffer in batch.buffers().ok_or("its batch has no data")? {
        let range = usize::try_from(buffer.offset()).ok().zip(usize::try_from(buffer.length()).ok());
        let data = range
            .and_then(|(offset, length)| body.as_slice().get(offset..offset.checked_add(length)?))
            .ok_or("a column reaches beyond its end")?;
        let Some(prefix) = data.get(..8) else {
            if data.is_empty() {
                continue;
            }
            return Err("a column is too short".to_owned());
        };
        let unpacked = match i64::from_le_bytes(prefix.try_into().unwrap_or_default()) {
            -1 => data.len() as u64,
            unpacked => u64::try_from(unpacked).map_err(|_| "a column of negative length")?,
        };
        sum = sum.saturating_add(unpacked);
    }
    if sum > max_bytes {
        return Err(format!("it would take {sum} bytes unpacked, at most {max_bytes} may be"));
    }
    Ok(())
}

fn fields_are<'a>(
    mut found: impl ExactSizeIterator<Item = arrow_ipc::Field<'a>>,
    wanted: &arrow_schema::Fields,
) -> bool {
    found.len() == wanted.len() && wanted.iter().all(|wanted| found.next().is_some_and(|f| field_is(f, wanted)))
}

/// Compared by hand: what turns a description into a schema takes it for granted that it is one.
fn field_is(found: arrow_ipc::Field<'_>, wanted: &Field) -> bool {
    let int = |bits: i32| {
        found.type_as_int().is_some_and(|int| int.bitWidth() == bits && !int.is_signed())
    };
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
