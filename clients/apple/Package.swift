// swift-tools-version:5.7
import PackageDescription

let package = Package(
    name: "Netstack",
    platforms: [.iOS(.v12), .macOS(.v10_15)],
    products: [.library(name: "Netstack", targets: ["Netstack"])],
    targets: [
        // The service as a library, clients/embed: see ./build-xcframework.
        .binaryTarget(name: "CNetstack", path: "build/CNetstack.xcframework"),
        .target(name: "NetstackUtun"),
        .target(name: "Netstack", dependencies: ["CNetstack", "NetstackUtun"]),
    ]
)
