use futures::TryStreamExt as _;
use http_kit::caller::Role;
use http_kit::testing::{NOW, refuses, token};
use ledger::store::History as _;
use photo::samples;
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::testing::{
    Api, DAY, Fault, JANE, JOHN, URL, form, is_at, john, made, service, upload, user,
};

const PATH: &str = "/api/v1/users/profile/photo";
const FILES: [(u32, &str); 5] = [
    (40, "40.webp"),
    (76, "76.webp"),
    (96, "96.webp"),
    (192, "192.webp"),
    (512, "512.webp"),
];

fn hash(photo: &[u8]) -> String {
    hex::encode(Sha256::digest(photo))
}

/// The folder of John's nth photo.
fn folder(n: u64, photo: &[u8]) -> String {
    format!("users/{JOHN}/photos/{}/{}", hash(photo), made(n))
}

/// John with his nth photo.
fn john_with(n: u64, photo: &[u8]) -> Value {
    let url = |file: &str| format!("{URL}/media/{}/{file}", folder(n, photo));
    let variants = FILES.map(|(size, file)| (size.to_string(), json!(url(file))));
    let shape = json!({
        "_id": made(n),
        "url": url("512.jpg"),
        "type": "image",
        "variants": serde_json::Map::from_iter(variants),
        "createdAt": NOW,
        "updatedAt": NOW,
    });
    let mut data = json!({});
    for (name, value) in john().as_object().unwrap() {
        if name == "createdAt" {
            data["profilePhoto"] = shape.clone();
        }
        data[name] = value.clone();
    }
    data
}

impl Api {
    /// The photo folders in the store.
    async fn folders(&self) -> Vec<String> {
        let files: Vec<_> = self.photo_store.files().try_collect().await.unwrap();
        let mut folders: Vec<_> = files
            .iter()
            .map(|file| {
                let key = photo_key::file(&file.user_id, &file.content_hash, &file.photo_id, "");
                key.trim_end_matches('/').to_owned()
            })
            .collect();
        folders.sort_unstable();
        folders.dedup();
        folders
    }

    async fn is_stored(&self, n: u64, photo: &[u8]) -> bool {
        let key = format!("{}/512.jpg", folder(n, photo));
        self.photo_store.read(&key).await.unwrap().is_some()
    }
}

#[tokio::test]
async fn every_accepted_format_is_answered_with_the_whole_profile() {
    for (media_type, photo) in [
        ("image/jpeg", samples::jpeg(150, 130)),
        ("image/png", samples::png(150, 130)),
        ("image/webp", samples::webp(150, 130)),
        ("image/gif", samples::gif(150, 130)),
    ] {
        let api = Api::with_users().await;
        let answer = api.send(upload(JOHN, &photo)).await;
        answer.succeeds(200, &john_with(1, &photo));
        is_at(&answer, 2, 3);
        let sides = [40, 76, 96, 130, 130];
        let variants: Vec<_> = FILES
            .iter()
            .zip(sides)
            .map(|((size, file), side)| json!({"size": size, "file": file, "side": side}))
            .collect();
        let payload = json!({
            "photoId": made(1), "contentHash": hash(&photo), "size": photo.len(), "mediaType": media_type,
            "width": 150, "height": 130, "main": "512.jpg", "variants": variants,
        });
        assert_eq!(api.newest().await, ("photo-changed".to_owned(), payload));
    }
}

#[tokio::test]
async fn the_bytes_are_stored_under_their_keys() {
    let api = Api::with_users().await;
    let photo = samples::png(600, 600);
    assert_eq!(api.send(upload(JOHN, &photo)).await.status, 200);
    for (size, file) in FILES.into_iter().chain([(512, "512.jpg")]) {
        let key = format!("{}/{file}", folder(1, &photo));
        let bytes = api.photo_store.read(&key).await.unwrap().expect(file);
        let image = image::load_from_memory(&bytes).unwrap();
        assert_eq!((image.width(), image.height()), (size, size), "{file}");
    }
    assert_eq!(api.folders().await, [folder(1, &photo)]);
}

#[tokio::test]
async fn the_bytes_are_stored_before_the_event() {
    let api = Api::with_users().await;
    let photo = samples::png(96, 96);
    api.store
        .gate
        .forget_permits(tokio::sync::Semaphore::MAX_PERMITS);
    let before = api.store.appends.load(std::sync::atomic::Ordering::SeqCst);
    let mut uploading = Box::pin(api.send(upload(JOHN, &photo)));
    while api.store.appends.load(std::sync::atomic::Ordering::SeqCst) == before {
        assert!(futures::poll!(&mut uploading).is_pending());
        tokio::task::yield_now().await;
    }
    assert!(api.is_stored(1, &photo).await);
    assert_eq!(api.store.head().await.unwrap().position, 2);
    api.store.gate.add_permits(1);
    assert_eq!(uploading.await.status, 200);
}

#[tokio::test]
async fn the_same_bytes_again_change_nothing() {
    let api = Api::with_users().await;
    let photo = samples::png(96, 96);
    let first = api.send(upload(JOHN, &photo)).await;
    let again = api.send(upload(JOHN, &photo)).await;
    assert_eq!((again.status, &again.body), (200, &first.body));
    is_at(&again, 2, 3);
    assert_eq!(api.ledger().await.len(), 3);
    // The bytes of the second upload are removed, those of the first are not.
    assert_eq!(api.folders().await, [folder(1, &photo)]);
}

#[tokio::test]
async fn every_change_has_its_own_id() {
    let api = Api::with_users().await;
    let (one, other) = (samples::png(96, 96), samples::png(97, 97));
    for (n, photo) in [(1, &one), (2, &other), (3, &one)] {
        let answer = api.send(upload(JOHN, photo)).await;
        answer.succeeds(200, &john_with(n, photo));
    }
    let (_, payload) = api.newest().await;
    assert_eq!(payload["previousPhotoId"], made(2));
    // Photos in the history are kept.
    for (n, photo) in [(1, &one), (2, &other), (3, &one)] {
        assert!(api.is_stored(n, photo).await);
    }
}

#[tokio::test]
async fn two_users_with_the_same_bytes_have_their_own_files() {
    let api = Api::with_users().await;
    let photo = samples::png(96, 96);
    for id in [JOHN, JANE] {
        assert_eq!(api.send(upload(id, &photo)).await.status, 200);
    }
    assert_eq!(api.folders().await.len(), 2);
}

#[tokio::test]
async fn a_form_has_exactly_one_part_named_file() {
    let api = Api::with_users().await;
    let photo = samples::png(96, 96);
    let ask = |parts: &[(&str, &[u8])]| {
        user(JOHN, "PATCH", PATH)
            .header("content-type", "multipart/form-data; boundary=x")
            .body(form(parts))
    };
    let general = ["Validation failed", "Doğrulama başarısız"];
    for (parts, english, turkish) in [
        (
            &[("photo", &photo[..])][..],
            "photo: is not a known field",
            "photo: bilinen bir alan değil",
        ),
        (
            &[("file", &photo[..]), ("caption", b"me")],
            "caption: is not a known field",
            "caption: bilinen bir alan değil",
        ),
        (
            &[("file", &photo[..]), ("file", &photo)],
            "file: is given more than once; send one photo",
            "file: birden fazla kez verilmiş; tek fotoğraf gönderin",
        ),
        (
            &[],
            "file: is required: one part of a multipart/form-data body",
            "file: zorunludur: multipart/form-data gövdesinin bir parçası",
        ),
        (&[("file", b"")], "file: is empty", "file: boş"),
        (
            &[("file", b"%PDF-1.7")],
            "file: is not a photo; send JPEG, PNG, WebP or GIF",
            "file: bir fotoğraf değil; JPEG, PNG, WebP ya da GIF gönderin",
        ),
        (
            &[("file", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")],
            "file: is a HEIC file, which is not supported; send JPEG, PNG, WebP or GIF",
            "file: desteklenmeyen bir HEIC dosyası; JPEG, PNG, WebP ya da GIF gönderin",
        ),
        (
            &[("file", b"<svg xmlns='http://www.w3.org/2000/svg'/>")],
            "file: is a SVG file, which is not supported; send JPEG, PNG, WebP or GIF",
            "file: desteklenmeyen bir SVG dosyası; JPEG, PNG, WebP ya da GIF gönderin",
        ),
        (
            &[("file", &photo[..photo.len() / 2])],
            "file: is damaged and cannot be read",
            "file: bozuk, okunamıyor",
        ),
        (
            &[("file", &samples::png(95, 200))],
            "file: is too small; the shorter side must have at least 96 pixels",
            "file: çok küçük; kısa kenar en az 96 piksel olmalıdır",
        ),
        (
            &[("file", &samples::png_header(12_001, 100))],
            "file: is too wide or too high; at most 12000 pixels a side are allowed",
            "file: çok geniş ya da çok yüksek; bir kenar en fazla 12000 piksel olabilir",
        ),
        (
            &[("file", &samples::png_header(10_000, 10_000))],
            "file: has too many pixels; at most 50 megapixels are allowed",
            "file: çok fazla piksel içeriyor; en fazla 50 megapiksel olabilir",
        ),
    ] {
        let ask = ask(parts);
        let (english, turkish) = ([general[0], english], [general[1], turkish]);
        let code = "VALIDATION_FAILED";
        refuses(&api.router, &ask, 400, code, &english, &turkish).await;
    }
    let torn = ask(&[("file", &photo)]).body(b"--x\r\nContent-Disposition: form-data".to_vec());
    let english = [general[0], "body: is not a valid multipart/form-data body"];
    let turkish = [
        general[1],
        "body: geçerli bir multipart/form-data gövdesi değil",
    ];
    let code = "VALIDATION_FAILED";
    refuses(&api.router, &torn, 400, code, &english, &turkish).await;
    assert!(api.folders().await.is_empty());
    assert_eq!(api.ledger().await.len(), 2);
}

#[tokio::test]
async fn a_body_that_is_not_a_form_is_refused() {
    let api = Api::with_users().await;
    let english = ["The Content-Type is not supported here"];
    let turkish = ["Content-Type burada desteklenmiyor"];
    for media_type in ["image/png", "application/json", "multipart/form-data"] {
        let ask = user(JOHN, "PATCH", PATH)
            .header("content-type", media_type)
            .body(samples::png(96, 96));
        let code = "UNSUPPORTED_MEDIA_TYPE";
        refuses(&api.router, &ask, 415, code, &english, &turkish).await;
    }
}

#[tokio::test]
async fn a_photo_over_10_mib_is_refused() {
    let api = Api::with_users().await;
    let english = [
        "The request body is too large",
        "A photo may have at most 10 MiB.",
    ];
    let turkish = [
        "İstek gövdesi çok büyük",
        "Bir fotoğraf en fazla 10 MiB olabilir.",
    ];
    // Over the limit of a photo, and over that of the whole body.
    for bytes in [MAX_BYTES + 1, BODY_BYTES] {
        let ask = upload(JOHN, &vec![b'x'; bytes]);
        let code = "BODY_TOO_LARGE";
        refuses(&api.router, &ask, 413, code, &english, &turkish).await;
    }
    let answer = api.send(upload(JOHN, &vec![b'x'; MAX_BYTES])).await;
    assert_eq!(
        answer.status, 400,
        "an upload of the maximum size is examined"
    );
}

#[tokio::test]
async fn a_caller_without_a_user_changes_nothing() {
    let api = Api::with_users().await;
    let photo = samples::png(96, 96);
    let ask = service("PATCH", PATH)
        .header("content-type", "multipart/form-data; boundary=x")
        .body(form(&[("file", &photo)]));
    let code = "INSUFFICIENT_PERMISSIONS";
    let (english, turkish) = (["Insufficient permissions"], ["Yetersiz yetki"]);
    refuses(&api.router, &ask, 403, code, &english, &turkish).await;
    let ask = upload("507f1f77bcf86cd799439000", &photo);
    let code = "RESOURCE_NOT_FOUND";
    let (english, turkish) = (["Resource not found"], ["Kaynak bulunamadı"]);
    refuses(&api.router, &ask, 404, code, &english, &turkish).await;
    assert!(api.folders().await.is_empty(), "unused bytes are removed");
}

#[tokio::test]
async fn a_user_uploads_one_photo_at_a_time() {
    let api = Api::with_users().await;
    let photo = samples::png(96, 96);
    // A body that never ends is in progress as long as it is held.
    let slow = futures::stream::pending::<Result<Bytes, std::io::Error>>();
    let request = axum::http::Request::builder()
        .method("PATCH")
        .uri(PATH)
        .header(
            "authorization",
            format!("Bearer {}", token(JOHN, &[Role::User])),
        )
        .header("content-type", "multipart/form-data; boundary=x")
        .body(axum::body::Body::from_stream(slow))
        .unwrap();
    let mut first = Box::pin(tower::ServiceExt::oneshot(api.router.clone(), request));
    for _ in 0..10 {
        assert!(futures::poll!(&mut first).is_pending());
        tokio::task::yield_now().await;
    }
    let ask = upload(JOHN, &photo);
    let english = [
        "Too many requests",
        "Another upload of yours is under way; wait until it ends.",
    ];
    let turkish = [
        "Çok fazla istek",
        "Devam eden başka bir yüklemeniz var; bitmesini bekleyin.",
    ];
    let code = "TOO_MANY_REQUESTS";
    refuses(&api.router, &ask, 429, code, &english, &turkish).await;
    let refused = api.send(ask.clone()).await;
    assert_eq!(refused.header("retry-after"), Some("1"));
    // Other users are not locked out, and the slot is free once the first upload has ended.
    assert_eq!(api.send(upload(JANE, &photo)).await.status, 200);
    drop(first);
    assert_eq!(api.send(ask).await.status, 200);
}

#[tokio::test]
async fn uploads_beyond_the_limit_are_refused() {
    let uploads = Uploads::default();
    let id = |n: usize| -> UserId { format!("{n:024x}").parse().unwrap() };
    let held: Vec<_> = (0..UPLOADS)
        .map(|n| uploads.begin(id(n)).expect("a place"))
        .collect();
    let refused = uploads.begin(id(UPLOADS)).err().expect("no place");
    assert_eq!(refused.code(), Code::QueueFull);
    drop(held);
    assert!(uploads.begin(id(UPLOADS)).is_ok());
}

#[tokio::test]
async fn a_repeated_upload_gets_the_same_answer_and_keeps_the_current_photo() {
    let api = Api::with_users().await;
    let photo = samples::png(96, 96);
    let ask = upload(JOHN, &photo).header("idempotency-key", "k");
    let first = api.send(ask.clone()).await;
    api.advance(DAY);
    for _ in 0..2 {
        let again = api.send(ask.clone()).await;
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert_eq!((again.status, &again.body), (200, &first.body));
        is_at(&again, 2, 3);
    }
    assert_eq!(api.folders().await, [folder(1, &photo)]);
    assert!(api.is_stored(1, &photo).await);
    assert_eq!(api.ledger().await.len(), 3);
    // A refused upload leaves nothing behind either.
    let other = upload(JOHN, &samples::png(97, 97)).header("idempotency-key", "k");
    assert_eq!(api.send(other).await.status, 422);
    assert_eq!(api.folders().await, [folder(1, &photo)]);
}

#[tokio::test]
async fn a_repeated_upload_of_a_replaced_photo_does_not_restore_it() {
    let api = Api::with_users().await;
    let (old, new) = (samples::png(96, 96), samples::png(97, 97));
    let of_phone = upload(JOHN, &old).header("idempotency-key", "phone");
    let first = api.send(of_phone.clone()).await;
    let of_tablet = upload(JOHN, &new).header("idempotency-key", "tablet");
    let second = api.send(of_tablet).await;
    // The phone never received its answer and tries again.
    let again = api.send(of_phone).await;
    assert_eq!(again.body, first.body);
    // Without a key, an upload of the current photo changes nothing.
    let current = api.send(upload(JOHN, &new)).await;
    assert_eq!(current.body, second.body);
    assert!(api.is_stored(1, &old).await && api.is_stored(2, &new).await);
    assert_eq!(api.folders().await.len(), 2);
    assert_eq!(api.ledger().await.len(), 4);
}

#[tokio::test]
async fn a_photo_for_another_version_is_refused() {
    let api = Api::with_users().await;
    let photo = samples::png(96, 96);
    let ask = upload(JOHN, &photo).header("if-match", "\"2\"");
    assert_eq!(api.send(ask).await.status, 412);
    assert!(api.folders().await.is_empty());
    let ask = upload(JOHN, &photo).header("if-match", "\"1\"");
    assert_eq!(api.send(ask).await.status, 200);
}

#[tokio::test]
async fn a_ledger_failure_is_answered_503_and_the_next_upload_succeeds() {
    let api = Api::with_users().await;
    let photo = samples::png(96, 96);
    let ask = upload(JOHN, &photo).header("idempotency-key", "k");
    api.store.fail_next(Fault::Full);
    let answer = api.send(ask.clone()).await;
    let sentence = "The service cannot answer right now; try again shortly";
    answer.fails(503, "UNAVAILABLE", &[sentence]);
    assert_eq!(answer.header("retry-after"), Some("1"));
    // The event may have been written, so its bytes stay until the next sweep.
    assert!(api.is_stored(1, &photo).await);
    let answer = api.send(ask).await;
    answer.succeeds(200, &john_with(2, &photo));
}

#[tokio::test]
async fn a_photo_store_failure_is_answered_503_without_an_event() {
    let api = Api::with_users().await;
    std::fs::remove_dir_all(&api.photo_folder).unwrap();
    std::fs::write(&api.photo_folder, "in the way").unwrap();
    let ask = upload(JOHN, &samples::png(96, 96));
    let english = ["The service cannot answer right now; try again shortly"];
    let turkish = ["Hizmet şu anda yanıt veremiyor; az sonra yeniden deneyin"];
    refuses(&api.router, &ask, 503, "UNAVAILABLE", &english, &turkish).await;
    assert_eq!(api.ledger().await.len(), 2);
    std::fs::remove_file(&api.photo_folder).unwrap();
    assert_eq!(api.send(ask).await.status, 200);
}

#[tokio::test]
async fn a_panic_during_an_upload_frees_its_slot() {
    let api = Api::with_users().await;
    let ask = upload(JOHN, &samples::png(96, 96));
    api.panic_next();
    let answer = api.send(ask.clone()).await;
    answer.fails(500, "INTERNAL_ERROR", &["Something went wrong on our side"]);
    assert_eq!(api.send(ask).await.status, 200);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_body_is_a_photo_or_an_error(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just(b"--x\r\n".to_vec()), Just(b"--x--".to_vec()), Just(b"\r\n\r\n".to_vec()),
                Just(b"Content-Disposition: form-data; name=\"file\"".to_vec()), Just(b"\r\n".to_vec()),
                proptest::collection::vec(any::<u8>(), 0..40),
            ],
            0..12,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let request = axum::http::Request::builder()
                .header("content-type", "multipart/form-data; boundary=x")
                .body(axum::body::Body::from(pieces.concat()))
                .unwrap();
            let multipart = <Multipart as axum::extract::FromRequest<()>>::from_request(request, &());
            if let Err(error) = read_file(multipart.await.unwrap()).await {
                assert_eq!(error.code(), Code::ValidationFailed);
            }
        });
    }
}
