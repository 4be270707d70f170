// A C++ program that calls the calculator of contrib/examples through libjson-rpc-cpp.
#include <iostream>

#include <jsonrpccpp/client.h>
#include <jsonrpccpp/client/connectors/unixdomainsocketclient.h>

int main(int argc, char **argv)
{
    jsonrpc::UnixDomainSocketClient connector(argv[argc - 1]);
    jsonrpc::Client client(connector, jsonrpc::JSONRPC_CLIENT_V2);
    Json::Value named, list;

    named["minuend"] = 42;
    named["subtrahend"] = 23;
    list.append(42);
    list.append(23);
    std::cout << client.CallMethod("subtract", named).asInt() << "\n";
    std::cout << client.CallMethod("subtract", list).asInt() << "\n";
    jsonrpc::BatchCall batch;
    int first = batch.addCall("sum", list), second = batch.addCall("get_data", Json::nullValue);
    jsonrpc::BatchResponse answers = client.CallProcedures(batch);
    std::cout << answers.getResult(first).asInt() << " " << answers.getResult(second)[0].asString()
              << "\n";
    try {
        client.CallMethod("foobar", Json::Value(Json::objectValue));
    } catch (const jsonrpc::JsonRpcException &error) {
        std::cout << error.GetCode() << "\n";
    }
}
