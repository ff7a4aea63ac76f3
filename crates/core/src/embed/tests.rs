use super::*;

fn cosine(a: &str, b: &str) -> f32 {
    let embedder = HashEmbedder::default();
    embedder.vector(a).iter().zip(embedder.vector(b)).map(|(x, y)| x * y).sum()
}

#[test]
fn every_vector_has_length_one_and_the_declared_dimension() {
    for dimension in [1, 7, 384, 1024] {
        let embedder = HashEmbedder::new(dimension).unwrap();
        for text in ["", "a", "!?", "Ein längerer Text über Bäume", "日本語のテキスト", "\u{0}\u{1}"]
        {
            let vector = embedder.vector(text);
            assert_eq!(vector.len(), dimension);
            let length: f32 = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            assert!((length - 1.0).abs() < 1e-5, "{text:?} {length}");
        }
    }
}

#[test]
fn a_dimension_out_of_range_is_refused() {
    for bad in [0, MAX_DIMENSION + 1] {
        assert_eq!(HashEmbedder::new(bad).unwrap_err().kind(), crate::ErrorKind::Invalid);
    }
}

#[test]
fn a_text_without_features_gives_the_first_unit_vector() {
    for text in ["", "  \n", "+-*/ ... !"] {
        let vector = HashEmbedder::default().vector(text);
        assert_eq!(vector[0], 1.0);
        assert!(vector[1..].iter().all(|x| *x == 0.0));
    }
}

#[test]
fn shared_words_are_nearer_than_others() {
    let query = "circuit breaker opens after failures";
    let near = cosine(query, "the breaker opens when failures repeat");
    let far = cosine(query, "green apples are sold on the market");
    assert!(near > 0.4 && far < 0.2, "{near} {far}");
}

#[test]
fn inflections_and_typing_errors_stay_near() {
    for (a, b) in [("searching", "searched"), ("snapshot", "snapshots"), ("durability", "durabilty")] {
        let (near, far) = (cosine(a, b), cosine(a, "elephant"));
        assert!(near > 0.25 && near > far + 0.2, "{a} {b}: {near} {far}");
    }
}

#[test]
fn identifiers_of_either_style_and_plain_words_are_near() {
    assert!(cosine("parse_http_url", "parseHttpUrl") > 0.999);
    assert!(cosine("parse http url", "parseHttpUrl") > 0.8);
    assert!(cosine("parse http url", "render_png_image") < 0.2);
}

#[test]
fn repetition_does_not_drown_the_rest() {
    let query = "log writer";
    let repeated = format!("log {}", "filler ".repeat(50));
    assert!(cosine(query, &repeated) > 0.05);
    assert!(cosine(query, "log writer filler") > cosine(query, &repeated));
}

#[test]
fn case_and_punctuation_do_not_matter() {
    assert!(cosine("Hello, World!", "hello world") > 0.999);
}

#[test]
fn what_comes_after_the_limit_changes_nothing() {
    let text = "é".repeat(MAX_TEXT_BYTES / 2);
    let embedder = HashEmbedder::default();
    assert_eq!(embedder.vector(&text), embedder.vector(&format!("{text} more")));
}

#[test]
fn a_known_text_gives_its_known_vector() {
    let vector = HashEmbedder::new(8).unwrap().vector("Open the write-ahead log: open_log(path)");
    let bits: Vec<String> = vector.iter().map(|x| format!("{:08x}", x.to_bits())).collect();
    // Confirmed by an implementation of the documentation in another language.
    assert_eq!(bits.join(" "), "3f2da739 a408f9c5 3ee9d503 bf1148dd 3d62f2de 00000000 a408f9c5 bda07a1a");
}

#[tokio::test]
async fn a_batch_is_embedded_in_order() {
    let embedder = HashEmbedder::default();
    let texts: Vec<String> = (0..50).map(|i| format!("text number {i}")).collect();
    let vectors = embedder.embed(&texts).await.unwrap();
    assert_eq!(vectors, texts.iter().map(|text| embedder.vector(text)).collect::<Vec<_>>());
    assert_eq!((embedder.name(), embedder.dimension()), ("hash-v1-384", 384));
    assert!(embedder.embed(&[]).await.unwrap().is_empty());
}
