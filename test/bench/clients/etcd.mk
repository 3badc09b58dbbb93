# The client of etcd, where gRPC's C++ library and its code generator are here.
#
# What is generated is neither ours nor looked at: it is compiled without
# warnings, and included as a system's header.

GRPC_PLUGIN := $(shell command -v grpc_cpp_plugin)
GRPC_HEADERS := $(shell $(CXX) -E -include grpcpp/version_info.h -include google/protobuf/message_lite.h \
	-x c++ /dev/null >/dev/null 2>&1 && echo yes)

ifneq ($(and $(GRPC_PLUGIN),$(GRPC_HEADERS),$(shell command -v protoc)),)

CLIENTS += etcd

CXXFLAGS = -O2 -Wall -Wextra
GRPC_CXX = $(CXX) -std=c++17 $(CXXFLAGS) -pthread -isystem $(OUT)

# gRPC's headers call libraries that only gRPC's own library names.
GRPC_LIBS = -Wl,--copy-dt-needed-entries -lgrpc++ -lprotobuf-lite

ETCD_GENERATED = etcd.pb etcd.grpc.pb etcd_lock.pb etcd_lock.grpc.pb
ETCD_SOURCES = $(ETCD_GENERATED:%=$(OUT)/%.cc)
ETCD_HEADERS = $(ETCD_GENERATED:%=$(OUT)/%.h)
ETCD_OBJECTS = $(ETCD_GENERATED:%=$(OUT)/%.o)

# One call makes them all; the stamp says that it came to its end.
$(OUT)/etcd.stamp: etcd.proto etcd_lock.proto
	@mkdir -p $(OUT)
	protoc --plugin=protoc-gen-grpc=$(GRPC_PLUGIN) --cpp_out=$(OUT) --grpc_out=$(OUT) $^
	@touch $@

$(ETCD_SOURCES) $(ETCD_HEADERS): $(OUT)/etcd.stamp ;

$(ETCD_OBJECTS): %.o: %.cc $(ETCD_HEADERS)
	$(GRPC_CXX) -w -c -o $@ $<

$(OUT)/etcd: etcd.cc frame.h $(FRAME) $(ETCD_OBJECTS)
	$(GRPC_CXX) -o $@ $< $(FRAME) $(ETCD_OBJECTS) $(GRPC_LIBS)

clean: clean-etcd
clean-etcd:
	rm -f $(OUT)/etcd.stamp $(ETCD_SOURCES) $(ETCD_HEADERS) $(ETCD_OBJECTS)

.PHONY: clean-etcd

endif
